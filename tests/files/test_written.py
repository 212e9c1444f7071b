"""Npz files as we write them: what was given and nothing else, with every NumPy allowed."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pytest

from taqstore.files.npz import NpzFile
from taqstore.files.written import save_npz

ARRAYS = {
    "mm0.img.attn.qkv": np.arange(7, dtype=np.float32),
    "step": np.int32(3),
    "prompts": np.array(["a cat", ""]),
    "none": np.zeros((0, 3), np.float16),
}


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_holds_its_arrays_and_no_more(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "of.any.suffix"
    save_npz(path, ARRAYS, compressed=compressed)
    found = NpzFile(path)
    assert found.names == tuple(ARRAYS)
    for name, array in ARRAYS.items():
        got = found.read(name)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array, strict=True)
    with ZipFile(path) as file:
        methods = {info.compress_type for info in file.infolist()}
    assert methods == {ZIP_DEFLATED if compressed else ZIP_STORED}


def test_objects_are_not_pickled(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    with pytest.raises(TypeError, match="prompts: Python objects are never written"):
        save_npz(path, {"x": np.zeros(2), "prompts": np.array(["a", None], object)})
    assert not path.exists()
