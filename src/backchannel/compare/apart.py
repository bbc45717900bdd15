"""Methods that train apart, side by side: the same small language model, text, batches and link for all of them.

Each method runs on real processes, one worker each, over gloo: in network namespaces with links of a rate and a delay
(`testing/links.py`), or over loopback. What is compared is the loss on held-out text against seconds and against bytes.

Beside the outer methods of the family, by key, there is plain data-parallel training, which sends every gradient:
`ddp`, `ddp_fp16` (in 16 bits), `ddp_powersgd` (by rank 4); and `none`, where nobody sends: how fast a step can be.
`torchft_diloco` is DiLoCo as torchft has it (extra `elastic`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from socket import create_server
from typing import Any

import msgspec
from torch import Tensor

from backchannel.card import find, index
from backchannel.tasks import character_lm as lm
from backchannel.testing.links import Links

PARALLEL = ("ddp", "ddp_fp16", "ddp_powersgd", "none")
TORCHFT = "torchft_diloco"
PORT = 29_571  # on links of our own: nobody else is there


class Training(msgspec.Struct, kw_only=True):
    """What all methods have in common. `text` is a file; empty: Python's help on itself."""

    text: str = ""
    workers: int = 2
    steps: int = 100_000
    seconds: float = 60.0  # of training, for each method, to the step
    every: int = 30  # steps between exchanges
    look: int = 5  # steps between looks at the loss, where there are no rounds at whose end to look
    width: int = 128
    layers: int = 4
    heads: int = 4
    context: int = 64
    batch: int = 8
    step_size: float = 2e-3
    seed: int = 0
    limit: float = 300.0  # seconds that a worker waits for another

    def given(self, method: str) -> dict[str, Any]:
        """The arguments of an outer method."""
        if method == "streaming_diloco":  # whose defaults are for longer rounds
            return {"steps": self.every, "fragments": min(4, self.every), "delay": min(5, self.every - 1)}
        return {"steps": self.every}


class Look(msgspec.Struct):
    """What worker 0 saw, and how many bytes had left its interface by then (0 where there is none of its own)."""

    step: int
    seconds: float
    loss: float
    bits: int
    wire: int = 0

    @property
    def megabytes(self) -> float:
        """Sent by a worker: as the interface counts, or as the method does."""
        return (self.wire or self.bits / 8) / 1e6


class Link(msgspec.Struct):
    """What lies between the workers."""

    rate: str | None = None
    delay: float = 0.0


def methods() -> list[str]:
    """What can be compared."""
    return [*PARALLEL, TORCHFT, *(entry["key"] for entry in index() if entry["protocol"] == "outer")]


def contest(
    about: Training,
    link: Link | None,
    keys: Sequence[str],
    told: Callable[[str, Look], None],
    failed: Callable[[str, str], None] | None = None,
) -> dict[str, list[Look]]:
    """Run the methods one after the other; what was seen of each.

    Args:
        about: what they have in common.
        link: between the workers; None for loopback.
        keys: of `methods()`.
        told: called with each look, as it comes.
        failed: called with a method that fails, and a sentence; the others are run all the same. Default: it is raised.

    Raises:
        ValueError: for a method that is none of these, or a text that is too short.
        RuntimeError: if links are refused, or a worker fails: with what it wrote.
    """
    if unknown := [key for key in keys if key not in methods()]:
        raise ValueError(f"{unknown[0]} does not train apart; these do: {', '.join(methods())}")
    read(about)  # what is too short, or a wrong setting, is refused before the work
    for key in keys:
        if key not in (*PARALLEL, TORCHFT):
            find(key, "distributed").factory(**about.given(key))
    found = {}
    for key in keys:
        try:
            found[key] = _run(about, link, key, partial(told, key))
        except RuntimeError as error:
            if failed is None:
                raise
            failed(key, str(error))
    return found


def read(about: Training) -> tuple[Tensor, Tensor]:
    """The text: what is trained on, and what is held out."""
    return lm.split(Path(about.text).read_bytes() if about.text else lm.text(), about.context)


def _run(about: Training, link: Link | None, method: str, told: Callable[[Look], None]) -> list[Look]:
    looks = []
    with _place(about.workers, link) as (address, start, sent):
        given = json.dumps({"about": msgspec.to_builtins(about), "method": method, "address": address})
        processes = []
        try:
            for rank in range(about.workers):
                process = start(rank, [sys.executable, "-m", "backchannel.compare.apart_worker", str(rank)])
                processes.append(process)
                with suppress(BrokenPipeError), process.stdin as asked:  # who is gone is named in the end
                    asked.write(given)
            before = sent()
            for line in processes[0].stdout:
                look = msgspec.json.decode(line, type=Look)
                look.wire = sent() - before
                looks.append(look)
                told(look)
            _ended(processes, method)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                for stream in (process.stdout, process.stderr):
                    stream.close()
    return looks


def _ended(processes: list[Any], method: str) -> None:
    """Wait for all; RuntimeError with the last lines of those that failed, two at most that differ."""
    end = time.monotonic() + 30
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(0.05)
    said: dict[str, int] = {}
    for rank, process in enumerate(processes):
        if process.poll() != 0:
            wrote = process.stderr.read().strip().splitlines() if process.poll() is not None else ["it hangs"]
            said.setdefault(wrote[-1] if wrote else "it wrote nothing", rank)
    if said:
        (first, rank), *others = said.items()
        also = "".join(f"; worker {rank}: {line}" for line, rank in others[:1])
        raise RuntimeError(f"worker {rank} of {method} failed: {first}{also}")


@contextmanager
def _place(workers: int, link: Link | None) -> Iterator[tuple[str, Callable[..., Any], Callable[[], int]]]:
    """Where workers run: an address to meet at, how to start one, and what left the first one's interface."""
    if link is None:
        with create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        yield address, _start, lambda: 0
        return
    with Links(workers, link.rate, link.delay) as links:
        meet = f"{links.address(0)}:{PORT}"
        yield meet, lambda rank, command: links.start(rank, command, **_PIPES), lambda: links.sent()[0]


def _start(rank: int, command: Sequence[str]) -> Any:
    return subprocess.Popen(command, text=True, **_PIPES)


_PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def write(
    folder: Path, about: Training, link: Link | None, looks: dict[str, list[Look]], failed: dict[str, str]
) -> tuple[Path, Path]:
    """train-apart.json, also of what failed and why, and train-apart.png in the folder."""
    from backchannel.compare.apart_picture import draw

    facts = {"training": about, "link": link, "looks": looks, "failed": failed}
    (folder / "train-apart.json").write_bytes(msgspec.json.format(msgspec.json.encode(facts), indent=1))
    draw(folder / "train-apart.png", looks, link)
    return folder / "train-apart.json", folder / "train-apart.png"


def reached(looks: Sequence[Look], loss: float) -> float | None:
    """Seconds until the loss was at most this; None if it never was."""
    return next((look.seconds for look in looks if look.loss <= loss), None)
