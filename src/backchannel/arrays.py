"""Arrays and a few facts in one file, without pickle: what snapshots and policy files are made of.

The file is NumPy's `.npz` with one more entry, `about`, that holds JSON. It is written beside its place and then
renamed, so that a reader sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

_DAMAGE = (zipfile.BadZipFile, EOFError, OSError, OverflowError, RecursionError, RuntimeError, ValueError, struct.error)
"""What zipfile and json raise for one changed byte or another."""

_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][biuf]\d\d?)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n",
    re.DOTALL,
)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write `arrays` and the JSON-able `about` to `path`."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            text = np.frombuffer(json.dumps(dict(about), allow_nan=False).encode(), np.uint8)
            np.savez(file, allow_pickle=False, about=text, **arrays)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the facts that `write_arrays` wrote.

    Never takes more memory than a small multiple of the file's size, whatever sizes the file claims.

    Raises:
        ValueError: in one sentence, if it is no such file or a damaged one.
    """
    with _Clamped(path) as raw:
        try:
            with zipfile.ZipFile(raw) as file:
                members = file.infolist()
                if sum(member.file_size for member in members) > raw.size:
                    raise ValueError("its entries claim to be larger than the file")
                arrays: dict[str, np.ndarray] = {}
                for member in members:
                    name = member.filename.removesuffix(".npy")
                    if name == member.filename or name in arrays or member.compress_type != zipfile.ZIP_STORED:
                        raise ValueError(f"the entry {member.filename!r} is not one that is written")
                    arrays[name] = _array(name, file.read(member))
            if "about" not in arrays:
                raise ValueError("it has no entry 'about'")
            about = json.loads(arrays.pop("about").tobytes(), parse_constant=_no_number)
            if not isinstance(about, dict):
                raise ValueError("its entry 'about' is no JSON object")
            return arrays, about
        except _DAMAGE as error:
            said = " ".join(str(error).split())
            raise ValueError(f"{path} is not a file that backchannel wrote, or it is damaged ({said})") from None


class _Clamped(io.BufferedReader):
    """zipfile asks for as many bytes as the file claims to hold, for which room would be made first."""

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most what is there."""
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _array(name: str, data: bytes) -> np.ndarray:
    """NumPy's format, as `np.save` writes it and no looser: nothing is evaluated; what is not there takes no room."""
    header = _HEADER.match(data)
    if header is None:
        raise ValueError(f"the entry {name!r} holds no plain array")
    kind, fortran, sizes = (group.decode() for group in header.groups())
    try:
        dtype = np.dtype(kind)
    except TypeError:
        raise ValueError(f"the entry {name!r} is of an unknown type {kind}") from None
    shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    start = 10 + int.from_bytes(data[8:10], "little")
    if start != header.end() or math.prod(shape) * dtype.itemsize != len(data) - start:
        raise ValueError(f"the entry {name!r} is not as long as it says")
    order: Literal["F", "C"] = "F" if fortran == "True" else "C"
    return np.array(np.frombuffer(data, dtype, offset=start).reshape(shape, order=order))


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
