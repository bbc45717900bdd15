"""The demo: the library's main job on two real logs, and pages worth looking at.

    make demo

1. *digits*: a real classification table replayed as decisions of an old model with some exploration. Learning shows,
   and as the right answers are known, the true value of every learned policy stands beside its estimate.
2. *open-bandit*: 10,000 real decisions of a fashion shop with 38 clicks. The honest page says that most policies
   cannot be told apart on it, and how many rows would settle it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

LOGS = {"digits": ["digits", "--logged-by", "stale"], "open-bandit": ["open-bandit", "--logged-by", "random"]}


def main() -> None:
    """Learn from both logs into demo/, let a policy act, and open the pages."""
    out = Path("demo")
    for name, arguments in LOGS.items():
        print(f"\n== backchannel learn {' '.join(arguments)} --out {out / name}", flush=True)
        command = [sys.executable, "-m", "backchannel.cli", "learn", *arguments, "--out", str(out / name)]
        subprocess.run(command, check=True)
    print("\n== a learned policy decides: backchannel act --policy demo/digits/lin_ts.policy", flush=True)
    act = [sys.executable, "-m", "backchannel.cli", "act", "--policy", str(out / "digits" / "lin_ts.policy")]
    subprocess.run(act, input=b'{"id": "image-1"}\n{"id": "image-2"}\n', check=True)
    pages = [(out / name / "report.html").resolve() for name in LOGS]
    print("\npages: " + ", ".join(str(page) for page in pages))
    if sys.stdout.isatty() and shutil.which("xdg-open" if sys.platform.startswith("linux") else "open"):
        for page in pages:
            webbrowser.open(page.as_uri())


if __name__ == "__main__":
    main()
