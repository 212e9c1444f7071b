"""A group without xarray says what its Dataset says, and `info` asks for no more than that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from support.hostile import make_small, small_latents, write_pooled
from taqstore import create_store, open_store
from taqstore.layout.nodes import ArrayNode
from taqstore.store.groups import dimension_names
from taqstore.store.reader import Store
from taqstore.testing import RunShape, make_store


def partly(path: Path) -> None:
    """One image of three is not whole, and text is in several files."""
    sizes = RunShape(images=3)
    make_store(path, shape=sizes)
    with create_store(path) as writer:
        group = writer.group(small_latents())
        group.put("x", (1, 0, 0, 0, 0), np.ones((1, 3, 8, 8, 16), np.float32))
        group.commit([(1,)])
    write_pooled(path)


def whole(path: Path) -> None:
    make_small(path)


@pytest.fixture(scope="module", params=[partly, whole], ids=lambda maker: maker.__name__)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    path = tmp_path_factory.mktemp("s") / "run.zarr"
    request.param(path)
    return open_store(path, chunks=None, checksum=True)


def same(ours: Any, theirs: Any) -> None:
    """Dims, dtype, attributes and values; texts by what they say."""
    assert ours.dims == theirs.dims
    assert ours.shape == theirs.shape
    assert (ours.dtype, dict(ours.attrs), ours.size) == (theirs.dtype, theirs.attrs, theirs.size)
    if theirs.dtype.kind in "UO":
        assert ours.values.tolist() == theirs.values.tolist()
    else:
        assert ours.values.tobytes() == theirs.values.tobytes()


@pytest.mark.parametrize("incomplete", [False, True])
def test_every_group_is_its_dataset(store: Store, incomplete: bool) -> None:
    store = store.reading(chunks=None, checksum=True, incomplete=incomplete)
    for path, dataset in store.items():
        plain = store.plain(path)
        assert list(plain.data_vars) == list(map(str, dataset.data_vars))
        assert list(plain.coords) == list(map(str, dataset.coords))
        assert list(plain.sizes.items()) == list(dataset.sizes.items())
        assert plain.attrs == dataset.attrs
        for name in plain.variables:
            same(plain[name], dataset[name])


def test_selections_add_up(store: Store) -> None:
    rng = np.random.default_rng(7)
    for path, dataset in store.items():
        plain, chosen = store.plain(path), dataset
        for dim, length in dataset.sizes.items():
            first: Any = slice(None, None, -1) if length % 2 else slice(length // 2, None)
            second = rng.integers(0, dataset.isel({dim: first}).sizes[dim], 3)
            plain = plain.isel(**{str(dim): first}).isel(**{str(dim): second})
            chosen = chosen.isel({dim: first}).isel({dim: second})
        for name in plain.variables:
            if plain[name].size < 1 << 16:
                same(plain[name], chosen[name])


def test_documents_say_of_arrays_what_zarr_says(store: Store) -> None:
    for path in store:
        nodes, group = store.documents(path), store.node(path)
        theirs: dict[str, Any] = dict(group.arrays())
        assert sorted(theirs) == [name for name, _ in nodes.arrays()]
        assert dict(group.attrs) == nodes.attrs
        for name, array in theirs.items():
            node: ArrayNode = nodes[name]
            for word in ("shape", "dtype", "chunks", "shards", "path", "basename"):
                assert getattr(node, word) == getattr(array, word)
            assert dict(array.attrs) == node.attrs
            assert dimension_names(array) == node.dimension_names
            assert np.array_equal(node.fill_value, array.fill_value, equal_nan=not node.is_text)
            assert type(node.fill_value) is type(array.fill_value)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [
        ("float32", float("inf")), ("float16", float("-inf")), ("float64", float("nan")),
        ("float32", 0.1), ("int8", -3), ("uint64", 2**64 - 1), ("bool", True), ("float32", 2),
    ],
)  # fmt: skip
def test_fills_are_those_of_zarr(tmp_path: Path, dtype: str, fill: Any) -> None:
    import json

    made: Any = zarr.open_group(tmp_path, mode="w").create_array(
        "x", shape=(2,), dtype=dtype, fill_value=fill
    )
    document = json.loads((tmp_path / "x" / "zarr.json").read_text())
    node = ArrayNode("x", document, lambda: None)
    assert type(node.fill_value) is type(made.fill_value)
    assert node.fill_value.tobytes() == made.fill_value.tobytes()


@pytest.mark.parametrize(
    "words",
    [
        ("info",),
        ("verify",),
        ("query", "activations/mlp.fc2", "--csv", "mean"),
        ("query", "activations/mlp.fc2", "mean", "--reduce", "channel=p99", "--layer", "mm0.*"),
    ],
    ids=" ".join,
)
def test_what_is_small_loads_neither_xarray_nor_zarr(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "run.zarr"
    make_store(path)
    program = (
        "import sys\nfrom taqstore.cli import cli\n"
        f"cli({[words[0], str(path), *words[1:]]!r}, standalone_mode=False)\n"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "numpy" in loaded
    assert not loaded & {"xarray", "zarr", "pandas", "dask"}
