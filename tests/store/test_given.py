"""Every public function that takes a group or a store says what to pass in the place of others."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

import taqstore
from support.builders import write_latents, write_pooled
from support.pages import read_table, ticked
from taqstore.analysis import ANALYSES
from taqstore.errors import MisuseError
from taqstore.testing import RunShape, make_second_moments, make_store

_NAMES = ("dataset", "datasets", "groups", "first", "second", "other", "store", "results")
_OTHERS = re.compile(r"\b(str|PathLike|int|Address)\b")


def takers() -> Iterator[Any]:
    """Public functions by each parameter that is a group, a store, or results; no addresses."""
    for module, names in read_table("docs/architecture.md", "public names"):
        held = import_module(ticked(module)[0])
        for name in ticked(names.partition("; rooms ")[0]):
            function = getattr(held, name)
            if inspect.isfunction(function):
                for parameter in inspect.signature(function).parameters.values():
                    kind = re.sub(r"Mapping\[str, ", "", str(parameter.annotation))
                    if parameter.name in _NAMES and not _OTHERS.search(kind):
                        yield pytest.param(function, parameter.name, id=f"{name}-{parameter.name}")


TAKERS = list(takers())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> taqstore.Store:
    path = tmp_path_factory.mktemp("given") / "store.zarr"
    write_latents(path, [0, 1])
    write_pooled(path)
    return taqstore.open_store(path)


def refused(function: Callable[..., Any], name: str, value: Any) -> str:
    with pytest.raises(MisuseError) as caught:
        function(**{name: value})
    text = str(caught.value)
    assert text.startswith(f"{function.__name__} takes ")
    assert "\n" not in text
    return text


def test_the_takers_were_found() -> None:
    assert len(TAKERS) > 45
    assert {"scales-dataset", "export-groups", "build-store"} <= {taker.id for taker in TAKERS}


@pytest.mark.parametrize(("function", "name"), TAKERS)
def test_a_path_is_told_from_what_is_open(function: Callable[..., Any], name: str) -> None:
    for path in ("some/run.zarr", Path("some/run.zarr")):
        text = refused(function, name, path)
        assert f'write {function.__name__}(taqstore.open_store("some/run.zarr")' in text or (
            "analyze or diff" in text
        )


@pytest.mark.parametrize(("function", "name"), TAKERS)
def test_what_is_neither_is_refused_by_its_name(
    function: Callable[..., Any], name: str, store: taqstore.Store
) -> None:
    variable = store["latents"]["x"]
    assert "one variable, 'x'" in refused(function, name, variable)
    assert "a DataTree" in refused(function, name, xr.DataTree(store["latents"]))
    assert "ndarray" in refused(function, name, variable.values)
    assert "int" in refused(function, name, 3)


@pytest.mark.parametrize(("function", "name"), TAKERS)
def test_a_group_is_told_from_a_store(
    function: Callable[..., Any], name: str, store: taqstore.Store
) -> None:
    wants_group = "one group" in refused(function, name, 3)
    if wants_group:
        assert "a store of 2 groups" in refused(function, name, store)
        assert 'store["pooled/timestep_stats/mlp.fc2"]' in refused(function, name, store)
        assert 'store["latents"]' in refused(function, name, {"latents": store["latents"]})
    else:
        assert "one group of latents" in refused(function, name, store["latents"])
        assert "dict" in refused(function, name, {"latents": store["latents"]["x"]})


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> taqstore.Store:
    path = tmp_path_factory.mktemp("observed") / "store.zarr"
    make_store(path, shape=RunShape(images=4))
    make_second_moments(path, shape=RunShape(images=4))
    return taqstore.open_store(path)


@pytest.mark.parametrize("word", [w for w, row in ANALYSES.items() if not row.whole])
def test_the_calls_of_the_line_can_be_typed(word: str, observed: taqstore.Store) -> None:
    function = ANALYSES[word].load()
    text = refused(function, "dataset", observed)
    match = re.search(r"; write (.*), or of all sites (taqstore.*)$", text)
    assert match is not None, text
    names = {word: function, "store": observed, "taqstore": taqstore}
    if word == "smooth":  # asks for weights next
        with pytest.raises(taqstore.TaqError, match="weights"):
            eval(match[1], names)
        return
    alone = eval(match[1], names)
    every = eval(match[2], names)
    there = every[f"{ANALYSES[word].source or 'activations'}/mlp.fc2"]
    # All sites share one budget, and get what one of them would not get alone.
    assert alone.sizes == there.sizes if ANALYSES[word].joint else alone.identical(there)


def test_a_path_inside_a_store_names_the_group() -> None:
    text = refused(taqstore.analysis.scales, "dataset", "a/run.zarr/activations/attn.qkv")
    assert 'open_store("a/run.zarr")["activations/attn.qkv"]' in text
