"""The command line. One file for each command; nothing heavy is imported until a command runs.

A command raises ValueError (or a subclass) for what its user can mend: it is printed as one sentence and the exit
code is 2. Ctrl-C gives 130.
"""

from __future__ import annotations

import sys

import typer

app = typer.Typer(
    name="backchannel",
    help="Learning from feedback: learn, evaluate and serve policies; find methods; re-check their papers' claims.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """The entry point."""
    from backchannel.cli import act, convert, learn, methods, report, workshop  # noqa: F401  (each registers its commands)

    try:
        app()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing more to say to it
        sys.exit(141)
    except (ValueError, KeyError, OSError, OverflowError, MemoryError) as error:
        print(f"backchannel: {message(error)}", file=sys.stderr)
        sys.exit(2)


def message(error: BaseException) -> str:
    """One sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'a file'}: {error.strerror}"
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
