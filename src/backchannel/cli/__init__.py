"""The command line. One file for each command; nothing heavy is imported until a command runs.

A command raises ValueError (or a subclass) for what its user can mend: it is printed as one sentence and the exit
code is 2. Ctrl-C gives 130, SIGTERM 143, and a reader of the output that goes away 141. Each of them unwinds the
command, so that its temporary files go.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any

import typer

app = typer.Typer(
    name="backchannel",
    help="Learning from feedback: learn, evaluate and serve policies; find methods; re-check their papers' claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_received: list[int] = []  # the signal that ends the command


def main() -> None:
    """The entry point."""
    _name_output()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        code = _run()
    except (KeyboardInterrupt, SystemExit, RuntimeError, SystemError):
        # DuckDB makes a RuntimeError of what a signal raises, compiled code a SystemError.
        if not stopping():
            raise
        print("stopped", file=sys.stderr)
        code = 128 + _received[0]
    sys.exit(code)


def stopping() -> bool:
    """Whether a signal has ended the command: an error that follows is its doing."""
    return bool(_received)


def message(error: BaseException) -> str:
    """One sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _stop(number: int, frame: Any) -> None:
    """Unwind what runs. A second SIGTERM must not disturb that."""
    _received.append(number)
    if number == signal.SIGTERM:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run() -> int:
    """Run the command; returns its exit code."""
    from backchannel.cli import act, align, audit, compare, convert, learn, methods, policy, report, serve, workshop
    from backchannel.cli import train_apart as apart

    assert all(
        (act, align, apart, audit, compare, convert, learn, methods, policy, report, serve, workshop)
    )  # each registers its commands

    try:
        try:
            app()
        except SystemExit as stop:
            if _received:
                raise
            if isinstance(stop.__context__, BrokenPipeError):  # of which Typer made an exit code of 1
                raise stop.__context__ from None
            sys.stdout.flush()
            if isinstance(stop.code, str):  # as Python does with it
                print(stop.code, file=sys.stderr)
                return 1
            return int(stop.code or 0)
    except BrokenPipeError:  # the reader of our output has gone: nothing more to say to it
        _discard_output()
        return 141
    except (ValueError, KeyError, OSError, ArithmeticError, MemoryError) as error:
        print(f"backchannel: {message(error)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
    return 2


class _Output(io.FileIO):
    """Standard output, which names itself where it cannot be written."""

    def write(self, data: Any, /) -> int:
        """As any file."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


def _name_output() -> None:
    old: Any = sys.stdout
    if old is None:  # it was closed before we began
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.devnull, "w")))
    elif not old.isatty():
        buffer, lines = io.BufferedWriter(_Output(1, "w", closefd=False)), old.line_buffering or old.write_through
        sys.stdout = io.TextIOWrapper(buffer, old.encoding, old.errors, line_buffering=lines)


def _discard_output() -> None:
    """Python itself would complain when it cannot write the rest at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
