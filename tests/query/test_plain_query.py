"""What is asked without xarray, dask and pandas is answered as with them, to the byte."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from support.cli_runner import Runner
from taqstore import open_store
from taqstore.arrays.plain import PlainArray, PlainGroup
from taqstore.errors import TaqError
from taqstore.files.tables import print_table, to_columns, to_tables, write_csv, write_json
from taqstore.query import reduce, select
from taqstore.query.reduction import WAYS, reduce_plain
from taqstore.testing import RunShape, make_store

SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 0.1, 1e-30, 3e30, 65504.0]
SIZES = {"step": 4, "layer": 3, "channel": 5, "slot": 2}
KINDS = [("step", "layer", "channel"), ("step", "layer"), ("channel", "step"), ("layer",), (), (
    "step", "slot")]  # fmt: skip
LABELS = {
    "step": (("step",), np.array([0, 3, 6, 7])),
    "sigma": (("step",), np.array([1, 0.7, 0.3, 0.1], np.float32)),
    "layer": (("layer",), np.array(["mm0.img", "mm0.txt", "uni1"])),
    "block": (("layer",), np.array(["mm0", "mm0", "uni1"])),
    "stream": (("layer",), np.array(["img", "txt", "uni"])),
    "image": (("step", "slot"), np.array([[0, 1], [2, 3], [4, -1], [5, -1]])),
    "prompt": (("layer",), np.array(["a,b", 'q"q\n', "ü" * 50], object)),
}
TYPES = [*"efd?bBhHiIlLqQ", "U", "O"]


def values_of(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Awkward values of a dtype."""
    if dtype in "UO":
        return rng.choice(["", "nan", "x" * 60, "ü,\n", '"'], shape).astype(dtype)
    numbers = rng.normal(size=shape) * 10 ** rng.integers(-6, 5, shape).astype(float)
    if dtype in "efd" and rng.random() < 0.5:
        numbers = np.where(rng.random(shape) < 0.2, rng.choice(SPECIAL, shape), numbers)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(numbers).astype(dtype)


def both(seed: int) -> tuple[xr.Dataset, PlainGroup]:
    """The same group with xarray and without."""
    rng = np.random.default_rng(seed)
    data = {}
    for number in range(int(rng.integers(1, 5))):
        dims = KINDS[rng.integers(len(KINDS))]
        shape = tuple(SIZES[dim] for dim in dims)
        data[f"v{number}"] = dims, values_of(rng, str(rng.choice(TYPES)), shape)
    dims = {dim for one, _ in data.values() for dim in one}
    labels = {n: row for n, row in LABELS.items() if set(row[0]) <= dims and rng.random() < 0.9}
    plain = [{n: PlainArray.of(*row, {}) for n, row in part.items()} for part in (data, labels)]
    return xr.Dataset(data, labels), PlainGroup(*plain)


def texts(group: Any) -> list[str]:
    """A group as every kind of text; of xarray through tables of pandas."""
    tables: Any = to_columns(group) if isinstance(group, PlainGroup) else to_tables(group)
    found = io.StringIO()
    write_json(tables, found)
    for table in tables:
        write_csv(table, found)
        for limit in (0, 3):
            print_table(table, limit, stream=found)
    return found.getvalue().split("\n")


def same(asked: Callable[[Any], Any], groups: tuple[Any, Any]) -> None:
    """The same texts and attributes, or the same refusal."""
    found: list[Any] = []
    for group in groups:
        try:
            answer = asked(group)
            found.append((texts(answer), answer.attrs.get("dropped")))
        except TaqError as error:
            found.append((type(error), str(error)))
    assert found[0] == found[1]


OPTIONS = {
    "step": ["0", "3,7", "::2", "1:7:3", "9", "x", "0:4:0"],
    "layer": ["mm0.*", "mm_00_img", "uni1,mm0.txt", "mm0.imh", "nope", ",", "mm0.img.attn.qkv"],
    "sigma": ["0.3:", ":0.5", "2:", "x"],
    "image": ["0", "2:5", "-1", "77"],
    "stream": ["img", "im", "i*,uni"],
    "block": ["mm0", "uni*", "mm9"],
    "channel": ["1:5:2", "0,4,1", "8"],
    "batch": ["0"],
}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.data())
def test_selections_and_tables_are_the_same(seed: int, draw: st.DataObject) -> None:
    words = draw.draw(st.lists(st.sampled_from(sorted(OPTIONS)), max_size=2, unique=True))
    chosen: Any = {word: draw.draw(st.sampled_from(OPTIONS[word])) for word in words}
    site = draw.draw(st.sampled_from(["", "mlp.fc2"]))
    same(lambda group: select(group, site=site, **chosen), both(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.data())
def test_names_choose_the_same(seed: int, draw: st.DataObject) -> None:
    dataset, plain = both(seed)
    every = st.sampled_from(list(map(str, dataset.variables)))
    names = draw.draw(st.lists(every, min_size=1, unique=True))
    assert list(plain[names].sizes.items()) == list(dataset[names].sizes.items())
    assert list(plain[names].coords) == list(dataset[names].coords)
    same(lambda group: group[names], (dataset, plain))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.data())
def test_reductions_of_one_block_are_the_same(seed: int, draw: st.DataObject) -> None:
    dataset, plain = both(seed)
    dims, ways = (
        st.sampled_from([*SIZES, "step", "no_dim"]),
        st.sampled_from([*WAYS, "p0", "p37.5"]),
    )
    specs = draw.draw(st.lists(st.builds("{}={}".format, dims, ways), max_size=3))

    def asked(group: Any) -> Any:
        if isinstance(group, PlainGroup):
            return reduce_plain(group, *specs)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return reduce(group.chunk(), *specs).compute()

    same(asked, (dataset, plain))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s") / "run.zarr"
    make_store(path, shape=RunShape(images=3))
    return path


WORDS = [
    (), ("--json",), ("--csv",), ("--limit", "2"), ("--step", "0", "--json"),
    ("--reduce", "step=mean", "--json"), ("--reduce", "channel=p99", "--reduce", "step=std"),
    ("--reduce", "bin=max"), ("--layer", "mm0.*", "--csv"), ("--image", "1", "--json"),
]  # fmt: skip


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_the_command_says_the_same(
    store: Path, words: tuple[str, ...], taq: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, told = open_store(store), []
    paths = [path for path in opened if path.endswith("mlp.fc2") or "/" not in path]
    for path in paths:
        for names in [(), *((str(name),) for name in list(opened[path].data_vars)[:3]), ("scale",)]:
            told.append([taq("query", store, path, *names, *words)])
    monkeypatch.setattr("taqstore.cli.query._plainly", lambda *asked: False)
    for path in paths:
        for names in [(), *((str(name),) for name in list(opened[path].data_vars)[:3]), ("scale",)]:
            told.pop(0).append(taq("query", store, path, *names, *words))
    assert all(one == other for one, other in told)
