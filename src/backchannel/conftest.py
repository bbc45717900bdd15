"""Doctests of learners are the battery's (`check_docstring`), which compiles nothing for them.

Without the torch extra, files that import torch are left out of the doctests; their tests skip and say so.
"""

import importlib.util
import re
from pathlib import Path

from backchannel.card import index

LEARNERS = [each["key"] for each in index() if (each["family"], each["protocol"]) == ("online", "learner")]
collect_ignore = [f"online/{key}.py" for key in LEARNERS]
if importlib.util.find_spec("torch") is None:
    here = Path(__file__).parent
    for path in here.glob("*/*.py"):
        if re.search(r"^(import|from) torch\b", path.read_text(), re.MULTILINE):
            collect_ignore.append(str(path.relative_to(here)))
