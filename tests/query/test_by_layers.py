"""Answers told some layers at a time are those of the lazy way, and read nothing twice."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
import xarray as xr

from taqstore import Store, open_store
from taqstore.analysis import ANALYSES
from taqstore.arrays import lazy
from taqstore.arrays.lazy import LazyArray, without_dask
from taqstore.arrays.store_array import ArrayReader
from taqstore.errors import MissingError, TaqError
from taqstore.files import tables
from taqstore.query import by_layers
from taqstore.query.analyze import analyze, load, site_tables
from taqstore.run.dealing import one_by_one
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
WORDS = [name for name, row in ANALYSES.items() if row.by_layer]
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in WORDS),
    ("groups", {"bits": 4, "symmetric": False, "count": 2}),
    ("groups", {"method": "sigma"}),
    ("bits", {"per": "step", "weight": "absolute", "average": 5}),
    ("error", {"clip": "percentile", "cuts": "static"}),
    ("tiers", {"clip": "hist_p999"}),
]
# Means of floats: the order of their sums follows the blocks of dask.
ROUNDED = {"tensor_mean", "tensor_std", "slope", "correlation"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("by_layers") / "store.zarr"
    make_store(path, shape=SHAPE)
    return open_store(path)


def assert_same(found: xr.Dataset, wanted: xr.Dataset) -> None:
    """Equal to the bit, dims, dtypes and attributes too, but for sums of floats."""
    assert list(found.variables) == list(wanted.variables)
    assert list(found.sizes.items()) == list(wanted.sizes.items())
    assert found.attrs == wanted.attrs
    rounded = [name for name in found.data_vars if name in ROUNDED]
    xr.testing.assert_identical(found.drop_vars(rounded), wanted.drop_vars(rounded))
    for name, array in found.variables.items():
        assert array.dims == wanted[name].dims
        assert array.dtype == wanted[name].dtype
    for name in rounded:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_layer_at_a_time_answers_as_the_lazy_way(
    store: Store, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "BLOCK_BYTES", 1)
    found = by_layers.told(name, store, one_by_one, **options)
    wanted = load(analyze(name, store, **options))
    assert found is not None
    assert list(found) == list(wanted)
    for path, result in found.items():
        assert_same(result, wanted[path])


def test_what_is_chosen_is_read_once_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()

    def counted(array: ArrayReader, key: Any, *, as_it_is: Any = ArrayReader.read) -> Any:
        found = as_it_is(array, key)
        read[str(array.array.path)] += found.size
        return found

    monkeypatch.setattr(lazy, "BLOCK_BYTES", 1)
    monkeypatch.setattr(ArrayReader, "read", counted)
    chosen = {"layer": "mm*.img", "step": "0:10"}
    found = by_layers.told("groups", store, one_by_one, sites=["mlp.fc2"], selection=chosen)
    assert found is not None
    site = store["activations/mlp.fc2"]
    kept = site.sel(layer=[str(n) for n in found["activations/mlp.fc2"]["layer"].values])
    steps = found["activations/mlp.fc2"].sizes["step"]
    assert 0 < steps < site.sizes["step"]
    for name in ("min", "max", "histogram"):
        assert read[f"activations/mlp.fc2/{name}"] == kept[name].isel(step=slice(steps)).size
    assert not any(key.endswith(("mean", "m2")) for key in read)


def test_shared_groups_and_what_dask_holds_are_left_to_the_lazy_way(store: Store) -> None:
    assert by_layers.told("groups", store, one_by_one, shared=True) is None
    behind = {path: store[path].chunk() for path in store if path.startswith("activations")}
    assert by_layers.told("shifts", behind, one_by_one) is None


def test_a_site_that_lacks_something_is_passed_over_unless_all_do(store: Store) -> None:
    one, two = "activations/mlp.fc1", "activations/mlp.fc2"
    lacks = store[one].drop_vars("histogram")
    found = by_layers.told("groups", {one: lacks, two: store[two]}, one_by_one)
    assert found is not None
    assert list(found) == [two]
    with pytest.raises(MissingError, match="groups needs"):
        by_layers.told("groups", {one: lacks}, one_by_one)
    with pytest.raises(MissingError, match="no site"):
        by_layers.told("groups", {one: store[one]}, one_by_one, sites=["mlp.fc2"])


def test_arrays_of_dask_are_recognised_after_xarray_did_without(store: Store) -> None:
    with without_dask():
        doubled = store["activations/mlp.fc2"]["tensor_max"] * 2
    behind = doubled.chunk()
    assert behind.chunks
    assert not isinstance(store["activations/mlp.fc2"]["min"].variable._data, np.ndarray)
    assert isinstance(store["activations/mlp.fc2"]["min"].variable._data, LazyArray)
    xr.testing.assert_identical(behind.compute(), doubled)


@pytest.mark.parametrize("name", [name for name in WORDS if not ANALYSES[name].joint])
def test_what_cannot_be_given_is_refused_from_the_first_block(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, wanted = [], load(analyze(name, store))
    blocks = 0

    def counted(*given: Any, as_it_is: Any = by_layers._told) -> Any:
        nonlocal blocks
        blocks += 1
        return as_it_is(*given)

    def refuse(part: xr.Dataset, more: Any) -> None:
        shown.append({**part.sizes, **more})
        raise TaqError("too large")

    monkeypatch.setattr(lazy, "BLOCK_BYTES", 1)
    monkeypatch.setattr(by_layers, "_told", counted)
    with pytest.raises(TaqError, match="too large"):
        by_layers.told(name, store, one_by_one, check=refuse)
    assert shown == [dict(wanted[next(iter(wanted))].sizes)]
    assert blocks <= len(store.paths)  # sites that lack what it needs come first, a block each


@pytest.mark.parametrize("name", [name for name, row in ANALYSES.items() if not row.second])
def test_large_tables_of_a_store_are_refused_before_they_are_computed(
    store: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words from sizes alone as from a table that was made."""
    try:
        lazily = analyze(name, store)
        wide = max(lazily.values(), key=lambda one: max(a.size for a in one.values()))
    except TaqError:
        pytest.skip("the store lacks what it needs")
    rows = [a.size for one in lazily.values() for a in one.values() if a.size > 1]
    monkeypatch.setattr(tables, "MAX_ROWS", min(rows) - 1)
    asking = sys.modules["taqstore.query.analyze"]
    monkeypatch.setattr(asking, "load", lambda _: pytest.fail("computed"))
    with pytest.raises(TaqError, match="is too large"):
        site_tables(lazily)
    with pytest.raises(TaqError, match="is too large"):
        tables.check_rows(wide)
