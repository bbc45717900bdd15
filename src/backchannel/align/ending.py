"""How a run ends: what it saves, and what its errors say."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from backchannel.align.reference import START


@contextmanager
def written(what: str, folder: Path) -> Iterator[None]:
    """What libraries raise as they save, in one sentence: torch has no word for a full disk.

    Raises:
        ValueError: if `what` cannot be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        said = str(error) or type(error).__name__
        full = os.strerror(errno.ENOSPC) in said or shutil.disk_usage(folder).free < 2**20
        why = "the disk is full" if full else said.splitlines()[0]
        raise ValueError(f"{what} cannot be written to {folder}: {why}") from error


def saved(folder: Path, tokenizer: Any) -> None:
    """The tokenizer beside a model; what others leave there goes: a card's template, pickled settings, a reference."""
    tokenizer.save_pretrained(str(folder))
    shutil.rmtree(folder / START, ignore_errors=True)
    for name in ("README.md", "training_args.bin"):
        (folder / name).unlink(missing_ok=True)


def noted(error: BaseException, more: str) -> BaseException:
    """The error, which says more at the end of its first line."""
    if isinstance(error, OSError) and error.strerror:
        error.strerror += f"; {more}"
    elif isinstance(error, Exception):
        first, *rest = str(error.args[0] if error.args else error).split("\n")
        error.args = ("\n".join([f"{first}; {more}", *rest]),)
    return error
