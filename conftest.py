"""Property tests draw the same examples in every run; HYPOTHESIS_PROFILE=search draws new ones."""

import os

try:
    from hypothesis import settings
except ImportError:  # the tests that need it fail by themselves
    pass
else:
    settings.register_profile("steady", derandomize=True)
    settings.register_profile("search", derandomize=False)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
