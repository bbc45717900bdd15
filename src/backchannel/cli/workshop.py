"""`new`: a method's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from backchannel.cli import app
from backchannel.cli.methods import AsJson
from backchannel.cli.show import print_json


@app.command()
def new(
    family: str,
    name: str,
    package: Annotated[Path | None, typer.Option(help="Where the package lies.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the files of a new method: FAMILY/NAME.py, its tests and its claim."""
    from backchannel.workshop.skeleton import write_skeleton

    written = write_skeleton(package or Path(__file__).resolve().parents[1], family, name)
    if as_json:
        print_json({"written": [str(path) for path in written]})
        return
    print("\n".join(f"wrote {path}" for path in written))
    print("next: run `make sync`, which puts it on the list; then CONTRIBUTING.md from step 3")
