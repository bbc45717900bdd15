"""`train-apart`: a small language model on a text file, over workers on a slow link, by methods side by side."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backchannel.cli import app
from backchannel.cli.methods import AsJson
from backchannel.cli.show import print_json, print_table

if TYPE_CHECKING:
    from backchannel.compare.apart import Look


@app.command("train-apart")
def train_apart(
    text: Annotated[Path | None, typer.Argument(help="A file to train on. Default: Python's help on itself.")] = None,
    methods: Annotated[str, typer.Option(help="Keys, with commas between.")] = "ddp,diloco,sparse_loco",
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes on this machine.")] = 2,
    rate: Annotated[str | None, typer.Option(help="Of each worker's link, as 20mbit. Default 20mbit.")] = None,
    delay: Annotated[str | None, typer.Option(help="One way, as 20ms. Default 20ms.")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Of training, for each method.")] = 60.0,
    every: Annotated[int, typer.Option(min=1, help="Steps between exchanges, where a method has such.")] = 30,
    width: Annotated[int, typer.Option(min=4, help="Of the model; a multiple of 4.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Of the model.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and batches.")] = 0,
    out: Annotated[Path, typer.Option(help="Where train-apart.json and .png go.")] = Path("train-apart"),
    as_json: AsJson = False,
) -> None:
    """Train over slow links: the loss against seconds and against bytes, for several methods."""
    from backchannel.cli.folder import named
    from backchannel.compare.apart import Link, Training, contest, write
    from backchannel.testing.links import refusal

    if text is not None and not text.is_file():
        raise ValueError(f"{text} is no file")
    if width % 4:
        raise ValueError(f"--width must be a multiple of 4, not {width}")
    about = Training(
        text=str(text or ""), workers=workers, seconds=seconds, every=every, width=width, layers=layers, seed=seed
    )
    link: Link | None = Link(_rate(rate or "20mbit"), _seconds(delay or "20ms"))
    if why := refusal():
        if rate is not None or delay is not None:
            raise ValueError(f"no links can be made here: {why}")
        print(f"no links can be made here ({why}): over loopback, compare bytes, not seconds", file=sys.stderr)
        link = None
    with named(out):
        out.mkdir(parents=True, exist_ok=True)
    keys = list(dict.fromkeys(key.strip() for key in methods.split(",") if key.strip()))
    if not keys:
        raise ValueError("--methods names none")
    said: dict[str, float] = {}

    def tell(key: str, look: Look) -> None:
        """A line now and then: a twentieth of the time apart."""
        if not as_json and look.seconds >= said.get(key, 0.0):
            said[key] = look.seconds + seconds / 20
            print(f"{key:18s} step {look.step:5d}  {look.seconds:6.1f} s  loss {look.loss:.3f}", file=sys.stderr)

    failed: dict[str, str] = {}

    def fail(key: str, why: str) -> None:
        """Say it at once; the others are run all the same."""
        failed[key] = why
        print(why, file=sys.stderr)

    looks = contest(about, link, keys, tell, fail)
    if looks:
        _print(looks, failed, [str(path) for path in write(out, about, link, looks, failed)], as_json)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
        raise typer.Exit(1)


def _print(looks: dict[str, list[Look]], failed: dict[str, str], paths: list[str], as_json: bool) -> None:
    """What came of each, and when it had reached the loss at which the first of them ended."""
    from backchannel.compare.apart import reached

    first = next(iter(looks))
    goal = looks[first][-1].loss
    columns = ["method", "steps", "s a step", "loss", "MB sent", f"s to {goal:.3f}"]
    rows = [
        [key, seen[-1].step, seen[-1].seconds / seen[-1].step, seen[-1].loss, seen[-1].megabytes, reached(seen, goal)]
        for key, seen in looks.items()
    ]
    if as_json:
        methods = [dict(zip(columns, row, strict=True)) for row in rows]
        print_json({"methods": methods, "failed": failed, "files": paths})
        return
    title = f"training apart, and seconds to the loss at which {first} ended"
    print_table(title, columns, [["-" if cell is None else cell for cell in row] for row in rows])
    print(f"wrote {' and '.join(paths)}")


def _rate(rate: str) -> str:
    """As `tc` reads it, to which a bare number is bits a second."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(kbit|mbit|gbit)", rate.lower())
    if found is None or not float(found[1]):
        raise ValueError(f"--rate is written as 20mbit, in kbit, mbit or gbit a second, not {rate!r}")
    return found[0]


def _seconds(delay: str) -> float:
    for unit, factor in (("ms", 1e-3), ("s", 1.0)):
        if delay.endswith(unit):
            try:
                return float(delay.removesuffix(unit)) * factor
            except ValueError:
                break
    raise ValueError(f"--delay is written as 20ms or 0.02s, not {delay!r}")
