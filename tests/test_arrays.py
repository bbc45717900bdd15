"""Arrays on disk: what is written is read, and what is damaged is refused in one sentence."""

import io
import pickle
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backchannel.arrays import read_arrays, write_arrays

DTYPES = st.sampled_from([np.float64, np.float32, np.int64, np.uint64, np.bool_, np.uint8])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NAMES = st.text("abcdefghij._", min_size=1, max_size=8).map(lambda name: f"state.{name}")
ABOUT = st.dictionaries(st.text(max_size=5), st.none() | st.integers(-(2**70), 2**70) | st.text() | st.booleans())


@settings(deadline=None)
@given(st.dictionaries(NAMES, ARRAYS, max_size=4), ABOUT)
def test_what_is_written_is_read(tmp_path_factory, arrays, about):
    path = tmp_path_factory.mktemp("arrays") / "file"
    write_arrays(path, arrays, about)
    found, said = read_arrays(path)
    assert said == about
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "file.npz"
    write_arrays(path, {"state.x": np.arange(8.0), "state.n": np.array([3])}, {"round": 7})
    return path


def test_a_file_cut_off_anywhere_is_refused(written):
    whole = written.read_bytes()
    for size in range(len(whole)):
        written.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"file\.npz is not a file that backchannel wrote, or it is damaged"):
            read_arrays(written)


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_changed_byte_is_refused_or_changes_nothing(written, mask):
    whole = written.read_bytes()
    refused = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= mask
        written.write_bytes(damaged)
        try:
            arrays, about = read_arrays(written)
        except ValueError:  # and nothing else
            refused += 1
            continue
        if {"state.x", "state.n"} <= arrays.keys():  # a damaged name of an entry is a name that its reader misses
            np.testing.assert_array_equal(arrays["state.x"], np.arange(8.0))
            assert about == {"round": 7}
    assert refused > len(whole) / 2


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "other"
    npy, pickled = io.BytesIO(), pickle.dumps({"about": 1})
    np.save(npy, np.arange(3))
    for content in (b"", b"text\n", npy.getvalue(), pickled, b"PK\x03\x04", b"\x00" * 100):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a file that backchannel wrote"):
            read_arrays(path)
    np.savez(path.with_suffix(".npz"), x=np.arange(3))  # arrays, but no facts
    with pytest.raises(ValueError, match="is not a file that backchannel wrote"):
        read_arrays(path.with_suffix(".npz"))


class Trap:
    """Unpickled, it would leave a trace."""

    def __reduce__(self):
        return (open, ("trapped", "w"))


def test_pickled_objects_are_neither_written_nor_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.npz"
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_arrays(path, {"x": np.array([Trap()])}, {})
    assert list(tmp_path.iterdir()) == []
    np.savez(path, about=np.frombuffer(b"{}", np.uint8), x=np.array([Trap()]), allow_pickle=True)
    with pytest.raises(ValueError, match="is not a file that backchannel wrote"):
        read_arrays(path)
    assert not (tmp_path / "trapped").exists()


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")


def test_where_the_disk_is_full_the_old_file_stays_whole(written):
    old = written.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) + 100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_arrays(written, {"state.x": np.arange(10_000.0)}, {"round": 8})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert written.read_bytes() == old
    assert list(written.parent.iterdir()) == [written]


def test_facts_that_are_not_json_leave_nothing_behind(written):
    old = written.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_arrays(written, {}, {"round": {1, 2}})
    assert written.read_bytes() == old
    assert list(written.parent.iterdir()) == [written]
