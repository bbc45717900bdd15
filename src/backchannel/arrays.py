"""Arrays and a few facts in one file, without pickle: what snapshots and policy files are made of.

The file is NumPy's `.npz` with one more entry, `about`, that holds JSON. It is written beside its place and then
renamed, so that a reader sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_DAMAGE = (zipfile.BadZipFile, AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What zipfile and NumPy raise for one changed byte or another."""


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write `arrays` and the JSON-able `about` to `path`."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            text = np.frombuffer(json.dumps(dict(about)).encode(), np.uint8)
            np.savez(file, allow_pickle=False, about=text, **arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the facts that `write_arrays` wrote; ValueError in one sentence if it is no such file."""
    with open(path, "rb") as raw:
        try:
            with np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays, json.loads(arrays.pop("about").tobytes())
        except _DAMAGE as error:
            raise ValueError(f"{path} is not a file that backchannel wrote, or it is damaged ({error})") from None
