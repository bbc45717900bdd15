"""`act`: a learned policy decides, line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from backchannel.cli import app
from backchannel.cli.options import Seed

CHUNK = 1 << 20  # bytes that are read at once, where so many wait


@app.command()
def act(
    policy: Annotated[Path, typer.Option(help="A file that `learn` wrote.")],
    requests: Annotated[
        str, typer.Argument(help="JSON lines: {context, options?, id?, time?}; default standard input.")
    ] = "-",
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Pass over fields that the policy does not know.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Let a policy decide: one decision with its propensity for each request, as JSON lines.

    Lines are answered as they come, so that a program may write one and wait for its answer. At a bad line the command
    stops; those before it have their answers.
    """
    import msgspec

    from backchannel.decide.acting import Actor, LoggedRequest, Request
    from backchannel.decide.policyfile import load_policy
    from backchannel.feedback import encode

    unit = f"{'standard input' if requests == '-' else requests}, line"
    actor = Actor(load_policy(policy), seed, ignore_unknown=ignore_unknown, unit=unit)
    decoder: Any = msgspec.json.Decoder(Request if ignore_unknown else LoggedRequest)

    def decoded(lines: list[tuple[int, bytes]]) -> Iterator[tuple[int, Request]]:
        for number, line in lines:
            if line.strip():
                try:
                    yield number, decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise ValueError(
                        f"{unit} {number}: expected a JSON object of context, options, id and time, but {error}"
                    ) from None

    out = sys.stdout.buffer
    with cast(BufferedReader, sys.stdin.buffer) if requests == "-" else open(requests, "rb") as file:
        for lines in _waiting(file):
            try:
                for decision in actor.decide(decoded(lines)):
                    out.write(encode(decision) + b"\n")
            finally:
                out.flush()


def _waiting(file: BufferedReader) -> Iterator[list[tuple[int, bytes]]]:
    """The whole lines that can be read without waiting for more, with their numbers; of a file a chunk at a time."""
    number, parts = 1, [b""]
    while chunk := file.read1(CHUNK):
        head, end, rest = chunk.rpartition(b"\n")
        if not end:
            parts.append(chunk)
            continue
        lines = b"".join([*parts, head]).split(b"\n")
        yield list(enumerate(lines, number))
        number, parts = number + len(lines), [rest]
    if last := b"".join(parts):
        yield [(number, last)]
