"""Compressed inner chunks decoded in place: any selection is what zarr reads of the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore import open_store
from taqstore.testing import make_sd3_store

GROUP = "activations/mlp.fc1"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "run.zarr"
    make_sd3_store(path, steps=3, batches=2, blocks=2)
    return path


def keys(length: int) -> st.SearchStrategy[Any]:
    at = st.integers(-length, length - 1)
    cut = st.builds(
        slice,
        st.integers(0, length),
        st.integers(0, length),
        st.integers(1, 3),
    )
    several = st.lists(at, min_size=1, max_size=4).map(np.array)
    turned = st.builds(slice, st.none(), st.none(), st.integers(-2, -1))
    dealt = st.permutations(range(length)).map(np.array)
    return st.one_of(at, cut, several, st.just(slice(None)), turned, dealt)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_selection_is_what_zarr_reads(store: Path, data: st.DataObject) -> None:
    whole = np.asarray(zarr.open_array(str(store / GROUP / "histogram"), mode="r")[...])
    lazy = open_store(store).array(GROUP, "histogram")
    assert lazy.inner_axis == 2
    key = tuple(data.draw(keys(n)) for n in lazy.shape)
    expected = whole
    for axis in reversed(range(whole.ndim)):
        expected = expected[(slice(None),) * axis + (key[axis],)]
    np.testing.assert_array_equal(lazy.read(key), expected)
