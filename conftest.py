"""Property tests draw the same examples in every run; HYPOTHESIS_PROFILE=search draws new ones.

What is imported while tests are collected stays for good: the garbage collector hardly looks at it then, and not at
all afterwards (a fifth of the time of collecting, and a tenth of that of tests that compile).
"""

import gc
import os

try:
    from hypothesis import settings
except ImportError:  # the tests that need it fail by themselves
    pass
else:
    settings.register_profile("steady", derandomize=True)
    settings.register_profile("search", derandomize=False)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))

gc.set_threshold(100_000, 50, 50)


def pytest_collection_finish():
    """In each process that runs tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 20)


def pytest_unconfigure():
    """Whoever looks for leaks at the end sees all."""
    gc.unfreeze()
