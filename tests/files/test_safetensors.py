"""Tensors written one at a time and read one at a time, beside the format's own library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taqstore.errors import SourceError
from taqstore.files.safetensors import (
    BFLOAT16,
    FLOAT8,
    Later,
    SafetensorsFile,
    write_safetensors,
)

BITS = np.arange(6, dtype=np.uint16).reshape(2, 3) + 0x3F80
TENSORS: dict[str, np.ndarray] = {
    "half": np.arange(6, dtype=np.float16).reshape(3, 2),
    "words": np.arange(4, dtype=np.uint32)[None],
    "brain": BITS.view(BFLOAT16),
    "eight": np.arange(8, dtype=np.uint8).view(FLOAT8),
    "none": np.zeros((0, 4), np.float32),
    "one": np.float32(2.5).reshape(()),
}


def test_what_is_made_late_is_the_same_file(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "now", TENSORS, format="pt")
    made: list[str] = []

    def later(name: str, values: np.ndarray) -> Later:
        def make() -> np.ndarray:
            made.append(name)
            return values

        return Later(values.dtype, values.shape, make)

    write_safetensors(tmp_path / "late", {n: later(n, v) for n, v in TENSORS.items()}, format="pt")
    assert (tmp_path / "late").read_bytes() == (tmp_path / "now").read_bytes()
    assert made == list(TENSORS)


def test_tensors_come_back_in_their_dtypes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, TENSORS)
    file = SafetensorsFile(path)
    assert list(file) == list(TENSORS)
    for name, wanted in TENSORS.items():
        found = file[name]
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        values = found.make()
        assert (values.dtype, values.shape) == (wanted.dtype, wanted.shape)
        assert values.tobytes() == wanted.tobytes()


def test_the_library_sees_the_same(tmp_path: Path) -> None:
    deserialize = pytest.importorskip("safetensors").deserialize
    path = tmp_path / "a.safetensors"
    write_safetensors(path, TENSORS)
    found = dict(deserialize(path.read_bytes()))
    assert {n: t["dtype"] for n, t in found.items()} == {
        "half": "F16", "words": "U32", "brain": "BF16", "eight": "F8_E4M3", "none": "F32",
        "one": "F32",
    }  # fmt: skip
    for name, tensor in found.items():
        assert tuple(tensor["shape"]) == TENSORS[name].shape
        assert bytes(tensor["data"]) == TENSORS[name].tobytes()


def test_a_short_or_foreign_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"x": np.arange(4.0)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(SourceError, match="does not fit its place"):
        SafetensorsFile(path)["x"].make()
    path.write_bytes(whole.replace(b"[4]", b"[5]"))
    with pytest.raises(SourceError, match="does not fit its place"):
        SafetensorsFile(path)["x"]
    path.write_bytes(whole.replace(b'"F64"', b'"C64"'))
    with pytest.raises(SourceError, match="not known"):
        SafetensorsFile(path)["x"]
