"""Arrays however they were saved: the same numbers are taken, others are never made of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore.errors import SourceError, TaqError
from taqstore.files.npy import read_npy
from taqstore.files.npz import NpzFile
from taqstore.files.safetensors import read_safetensors, tensor_names
from taqstore.files.weight_absmax import weight_absmax

RNG = np.random.default_rng(5)
HALF = RNG.normal(size=(3, 4)).astype(np.float16).astype(np.float32)
COUNTS = np.arange(12, dtype=np.int32).reshape(3, 4)
ONE = np.float32(2.5)

# The array that is needed, and what it was saved as.
Change = Callable[[np.ndarray], np.ndarray]
TAKEN: dict[str, tuple[np.ndarray, Change]] = {
    "as it is": (HALF, lambda x: x),
    "Fortran order": (HALF, np.asfortranarray),
    "big-endian": (HALF, lambda x: x.astype(">f4")),
    "big-endian Fortran": (HALF, lambda x: np.asfortranarray(x.astype(">f8"))),
    "wider": (HALF, lambda x: x.astype(np.float64)),
    "infinite": (np.array([[np.inf, -np.inf]], np.float32), lambda x: x.astype(np.float64)),
    "no numbers": (np.full((2, 2), np.nan, np.float32), lambda x: x.astype(np.float64)),
    "int64": (COUNTS, lambda x: x.astype(np.int64)),
    "uint8": (COUNTS, lambda x: x.astype(np.uint8)),
    "big-endian int": (COUNTS, lambda x: x.astype(">i8")),
    "floats that are whole": (COUNTS, lambda x: x.astype(np.float64)),
    "one number in an axis": (np.array(ONE), lambda x: x.reshape(1)),
    "one number, float64": (np.array(ONE), lambda x: np.array([2.5])),
    "no axis": (np.array([2.5], np.float32), lambda x: x.reshape(())),
    "flags as numbers": (np.array([True, False]), lambda x: x.astype(np.int64)),
    "empty": (np.zeros((0, 4), np.float32), lambda x: x.astype(np.float64)),
}
REFUSED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "rounded": (HALF, HALF.astype(np.float16)),
    "inexact": (HALF, np.full((3, 4), 0.1)),
    "too large": (HALF, np.full((3, 4), 1e300)),
    "fraction": (COUNTS, np.full((3, 4), 0.5)),
    "beyond int32": (COUNTS, np.full((3, 4), 1 << 40)),
    "beyond int64": (COUNTS.astype(np.int64), np.full((3, 4), 1e30)),
    "nan as int": (COUNTS, np.full((3, 4), np.nan)),
    "text": (HALF, np.full((3, 4), "1.0")),
    "complex": (HALF, HALF.astype(np.complex64)),
    "transposed": (HALF, HALF.T.copy()),
    "flattened": (HALF, HALF.ravel()),
    "one for many": (HALF, np.zeros(1, np.float32)),
    "two axes for none": (np.array(ONE), np.zeros((1, 1), np.float32)),
    "2 as a flag": (np.array([True, False]), np.array([2, 0])),
}


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "deflated"])
@pytest.mark.parametrize("name", TAKEN)
def test_the_same_numbers_are_taken(name: str, compressed: bool, tmp_path: Path) -> None:
    needed, change = TAKEN[name]
    path = tmp_path / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=change(needed))
    found = NpzFile(path).read("x", dtype=needed.dtype, shape=needed.shape)
    assert (found.dtype, found.shape) == (needed.dtype, needed.shape)
    assert found.tobytes() == needed.tobytes()


@pytest.mark.parametrize("name", REFUSED)
def test_other_numbers_are_refused(name: str, tmp_path: Path) -> None:
    needed, saved = REFUSED[name]
    path = tmp_path / "a.npz"
    np.savez(path, x=saved)
    with pytest.raises(SourceError) as error:
        NpzFile(path).read("x", dtype=needed.dtype, shape=needed.shape)
    assert f"{path}: x: " in str(error.value)
    assert saved.dtype.name in str(error.value)


@pytest.mark.parametrize("name", [n for n, (x, _) in TAKEN.items() if x.ndim == 2 and x.size])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_rows_are_those_of_the_array(name: str, count: int, tmp_path: Path) -> None:
    needed, change = TAKEN[name]
    np.savez_compressed(tmp_path / "a.npz", x=change(needed))
    np.save(tmp_path / "a.npy", change(needed))
    rows = np.concatenate(list(NpzFile(tmp_path / "a.npz").rows("x", count)))
    for found in (rows, read_npy(tmp_path / "a.npy")):
        assert found.dtype.isnative
        assert np.array_equal(found, needed, equal_nan=needed.dtype.kind == "f")


# Dtypes of the format, of which a file may hold any beside what is needed: bytes of an element.
OTHERS = {"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2,
          "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "C64": 8, "F64": 8, "I64": 8, "U64": 8,
          "F4": 0.5, "F6_E2M3": 0.75, "NEWER": 3}  # fmt: skip
LINEAR = "joint_blocks.0.x_block.mlp.fc1.weight"


def write(path: Path, *tensors: tuple[str, str, list[int], bytes]) -> Path:
    header: dict[str, Any] = {}
    data = b""
    for name, dtype, shape, raw in tensors:
        place = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": place}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def bfloat16(values: np.ndarray) -> bytes:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


@pytest.mark.parametrize("dtype", OTHERS)
def test_only_tensors_that_are_needed_are_judged(dtype: str, tmp_path: Path) -> None:
    # Exact in bfloat16: 8 bits of mantissa.
    values = np.array([[1.0, -2.5, 0.0], [3.0, 2.25, -1e-30]], np.float32)
    values = (values.view(np.uint32) >> 16 << 16).view(np.float32)
    other = ("text_encoders.x.weight", dtype, [4], b"\0" * int(4 * OTHERS[dtype]))
    bias = (LINEAR.replace("weight", "bias"), dtype, [4], b"\0" * int(4 * OTHERS[dtype]))
    path = write(
        tmp_path / "w.safetensors", other, (LINEAR, "BF16", [2, 3], bfloat16(values)), bias
    )
    found = weight_absmax(path)
    assert found.sites["mlp.fc1"].values.tolist() == [np.abs(values).max(axis=0).tolist()]
    assert found.notes == [f"{path.name}: 2 tensors are no linears"]
    assert tensor_names(path) == [other[0], LINEAR, bias[0]]
    ((name, read),) = read_safetensors(path, wanted=lambda name: name == LINEAR)
    assert (name, read.tobytes()) == (LINEAR, values.tobytes())


@pytest.mark.parametrize("dtype", [d for d in OTHERS if d not in ("F16", "BF16", "F32", "F64")])
def test_a_needed_tensor_of_no_floats_is_named(dtype: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / "w.safetensors", (LINEAR, dtype, [4, 1], b"\0" * int(4 * OTHERS[dtype]))
    )
    with pytest.raises(TaqError) as error:
        weight_absmax(path)
    assert LINEAR in str(error.value)
    assert "F32" in str(error.value)


def test_an_npz_of_weights_is_judged_by_what_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    np.savez(
        path, **{LINEAR: np.asfortranarray(HALF)}, names=np.array(["a"]),
        pickled=np.array([{}], dtype=object), steps=np.int64(3),
    )  # fmt: skip
    assert weight_absmax(path).sites["mlp.fc1"].values.tolist() == [np.abs(HALF).max(0).tolist()]


# What may be given in place of a file of weights -> the words for it.
INSTEAD: dict[str, tuple[bytes, str]] = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
    "a web page": (b"<!doctype html><html>Not Found</html>", "web page"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0", "gzip"),
    "a pickle": (b"\x80\x02}q\0.\0\0\0\0\0\0", "pickle"),
    "a checkpoint": (b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl", "PyTorch"),
    "a zip": (b"PK\x03\x04" + b"\0" * 26 + b"readme.md", "zip archive"),
    "json": (b'{"weights": 1}', "JSON"),
    "nothing": (b"", "empty"),
    "zeros": (b"\0" * 64, "zeros"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
@pytest.mark.parametrize("name", INSTEAD)
def test_a_file_of_another_kind_says_what_it_is(name: str, suffix: str, tmp_path: Path) -> None:
    raw, says = INSTEAD[name]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(raw)
    with pytest.raises(TaqError) as error:
        weight_absmax(path)
    text = str(error.value)
    assert says in text
    assert "\n" not in text


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".bin"])
def test_a_folder_says_that_it_is_one(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"w{suffix}").mkdir()
    with pytest.raises(TaqError, match="a folder"):
        weight_absmax(tmp_path / f"w{suffix}")
