"""Training apart on a slow link, and what compressing costs: `python benchmarks/distributed.py` (root, ten minutes).

1. Two workers, a transformer of 4.8 million parameters on bytes, a link of 20 Mbit/s and 20 ms one way in network
   namespaces: plain data-parallel training, its 16-bit and PowerSGD hooks, torchft's DiLoCo, and the methods of the
   library, one after the other, each for as long as it needs to be compared. `none` exchanges nothing: how fast a step
   can be. Loss is that on held-out text. The losses of data-parallel training do not depend on the link: those of many
   steps come from a run without a limit, and count as so many of its steps on the link.
2. Choosing, writing and packing the largest of 5 million numbers, in one thread.

    --quick         a rehearsal: a small model, seconds
    --write FILE    put the tables between the marks of a Markdown file
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import torch
from marks import rewrite

from backchannel.compare.apart import Link, Look, Training, contest, reached
from backchannel.parts.compressors import Compressor, top_k
from backchannel.parts.formats import two_bit

BEGIN, END = "<!-- training apart: benchmarks/distributed.py writes it -->", "<!-- the end of training apart -->"
SECONDS = {
    "none": 15, "ddp": 45, "ddp_fp16": 20, "ddp_powersgd": 60, "torchft_diloco": 60, "diloco": 60, "sparse_loco": 90,
    "streaming_diloco": 60, "co2": 75,
}  # fmt: skip
GOALS = (60, 180)  # steps of data-parallel training whose loss is to be reached
MANY, SHARE = 5_000_000, 0.01


def race(quick: bool) -> tuple[dict[str, list[Look]], list[Look]]:
    """Every method on the same link, in turn; and data-parallel training without a limit, for its losses."""
    about = Training(width=32, layers=1) if quick else Training(width=256, layers=6, heads=4, every=40, batch=8)
    found = {}
    for key, seconds in SECONDS.items():
        for_it = msgspec.structs.replace(about, seconds=seconds / 25 if quick else seconds)
        found |= contest(for_it, Link("20mbit", 0.02), [key], lambda key, look: None)
        print(key, found[key][-1], flush=True)
    free = msgspec.structs.replace(about, seconds=600.0, steps=max(GOALS), look=20)
    return found, contest(free, None, ["ddp"], lambda key, look: None)["ddp"]


def race_table(found: dict[str, list[Look]], parallel: list[Look]) -> list[str]:
    """A row for each: the speed, the bytes, and how soon it had reached the losses of data-parallel training."""
    pace = {key: seen[-1].seconds / seen[-1].step for key, seen in found.items()}
    goals = {look.step: look.loss for look in parallel if look.step in GOALS}
    heads = [f"s to `ddp`'s loss of {steps} steps ({loss:.3f})" for steps, loss in goals.items()]
    rows = [
        "| method | seconds a step | computing | MB sent a step | loss at the end | " + " | ".join(heads) + " |",
        "|---|---:|---:|---:|---:|" + "---:|" * len(heads),
    ]
    for key, seen in found.items():
        last = seen[-1]
        said = "" if key == "none" else f"{last.megabytes / last.step:.3f}"
        when = [steps * pace[key] if key == "ddp" else reached(seen, loss) for steps, loss in goals.items()]
        soon = " | ".join("not in its time" if each is None else f"{each:.0f}" for each in when)
        rows.append(
            f"| `{key}` | {pace[key]:.2f} | {min(1.0, pace['none'] / pace[key]):.2f} | {said} | "
            f"{last.loss:.3f} (step {last.step}) | {soon} |"
        )
    return rows


def accounting(found: dict[str, list[Look]]) -> list[str]:
    """What the methods count against what left the interface."""
    rows = ["| method | counted, MB | interface, MB | ratio |", "|---|---:|---:|---:|"]
    for key in ("diloco", "sparse_loco", "streaming_diloco", "co2"):
        last = found[key][-1]
        counted = last.bits / 8e6
        rows.append(f"| `{key}` | {counted:.2f} | {last.wire / 1e6:.2f} | {last.wire / 1e6 / counted:.3f} |")
    return rows


def compressing() -> list[str]:
    """Milliseconds for 5 million numbers, in turns."""
    torch.set_num_threads(1)
    x, keys = torch.randn(1, MANY), torch.zeros(1, dtype=torch.int64)
    chunked, small = top_k(41, chunk=4096), top_k(41, chunk=4096, values=two_bit())
    work: dict[str, Callable[[], Any]] = {
        "`torch.topk`, 1 % of all": lambda: x.abs().topk(int(SHARE * MANY), dim=1),
        "1 % of each 4,096, compressed": lambda: chunked.compress(x, keys),
        "the same, compressed and packed": lambda: _packed(chunked, x, keys),
        "the same in 2 bits, compressed and packed": lambda: _packed(small, x, keys),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(15):
        for name, call in work.items():
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return ["| 5 million numbers, one thread | ms |", "|---|---:|"] + [
        f"| {name} | {median(each):.1f} |" for name, each in times.items()
    ]


def _packed(compressor: Compressor, x: torch.Tensor, keys: torch.Tensor) -> list[bytes]:
    return compressor.pack(compressor.compress(x, keys))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    packing = compressing()
    found, parallel = race(given.quick)
    text = "\n".join([*race_table(found, parallel), "", *accounting(found), "", *packing])
    print(text)
    if given.write:
        rewrite(given.write, text, BEGIN, END)


if __name__ == "__main__":
    main()
