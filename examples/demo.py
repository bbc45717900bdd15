"""The demo: the library's main job on two real logs, and pages worth looking at.

    make demo

1. *digits*: a real classification table replayed as decisions of an old model with some exploration. Learning shows,
   and as the right answers are known, the true value of every learned policy stands beside its estimate.
2. *open-bandit*: 10,000 real decisions of a fashion shop with 38 clicks. The honest page says that most policies
   cannot be told apart on it, and how many rows would settle it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import duckdb
import msgspec

from backchannel.decide.replay import DIGITS

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
    for line in subprocess.run(act, input=images(), stdout=subprocess.PIPE, check=True).stdout.splitlines():
        decision = json.loads(line)
        print(f"{decision['id']}: decides {decision['action']}, with probability {decision['propensity']:.2g}")
    pages = [(out / name / "report.html").resolve() for name in LOGS]
    print("\npages: " + ", ".join(str(page) for page in pages))
    if sys.stdout.isatty() and shutil.which("xdg-open" if sys.platform.startswith("linux") else "open"):
        for page in pages:
            webbrowser.open(page.as_uri())


def images(number: int = 3) -> bytes:
    """So many requests: images with their 64 pixels; the id says what they show."""
    table = duckdb.execute(f"FROM '{DIGITS}' LIMIT {number}")
    names = [column[0] for column in table.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in table.fetchall()]
    requests = [{"id": f"image of a {row.pop('digit')}", "context": row} for row in rows]
    return b"".join(msgspec.json.encode(request) + b"\n" for request in requests)


if __name__ == "__main__":
    main()
