"""Groups of every kind by xarray alone: opened by it, and written by it from what we opened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import taqstore
from campaign.stores import every_kind, write
from support.builders import latent, write_latents
from support.sensitivity_store import write_sensitivities
from taqstore.kinds.templates import pictures_template
from taqstore.kinds.trajectories import FLOAT, trajectories_template
from taqstore.names import KINDS
from taqstore.store.attributes import as_held, attribute_of
from taqstore.testing import RunShape, make_second_moments

RUN = {"model": "made-up", "steps": 4, "weights": None}
ATTRS = {"run": RUN, "final": True, "edges": [0.5, 1], "names": []}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "store.zarr"
    sigmas = np.linspace(1, 0, 3, dtype=np.float32)
    templates = [
        *every_kind(),
        pictures_template(images=[0, 1], shape=(2, 3, 1), attrs={}),
        trajectories_template(
            FLOAT, images=[4], prompts=["é"], seeds=[4], cfg_weight=3.0, sigmas=sigmas,
            timesteps=1000 * sigmas, shape=(2, 3, 1), attrs={},
        ),
    ]  # fmt: skip
    write(path, [replace(one, attrs={**one.attrs, **ATTRS}) for one in templates])
    write_sensitivities(path, formats=["rtn-w4"], images=[0])
    make_second_moments(path, shape=RunShape(images=2, blocks=1))
    return path


def test_the_store_has_groups_of_every_kind(path: Path) -> None:
    store = taqstore.open_store(path)
    assert {store[group].attrs["kind"] for group in store} == set(KINDS)


def bare(dataset: xr.Dataset) -> xr.Dataset:
    """Without the completion mask, which taqstore leaves out of what is whole."""
    return dataset.drop_vars("written", errors="ignore")


def assert_same(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    ours, theirs = bare(ours), bare(theirs)
    assert set(ours.variables) == set(theirs.variables)
    for name, variable in ours.variables.items():
        other, values = theirs[name].variable, variable.values
        assert variable.dims == other.dims, name
        assert other.values.astype(values.dtype).tolist() == values.tolist() or (
            np.array_equal(values, other.values, equal_nan=True)
        ), name


def test_xarray_opens_every_group(path: Path) -> None:
    store = taqstore.open_store(path)
    tree = xr.open_datatree(path, engine="zarr", chunks={})
    for group in store:
        for opened in (
            xr.open_zarr(path, group=group),
            xr.open_dataset(path, engine="zarr", group=group),
            tree[group].to_dataset(),
        ):
            assert_same(store[group], opened)
            for name, variable in bare(store[group]).variables.items():
                if variable.dtype.kind not in "OU":
                    assert opened[name].dtype == variable.dtype
    tree.close()


@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_an_opened_group_is_written_by_xarray(
    path: Path, tmp_path: Path, chunks: Any, suffix: str
) -> None:
    pytest.importorskip("h5netcdf")
    store = taqstore.open_store(path, chunks=chunks)
    for number, group in enumerate(store):
        target = tmp_path / f"{number}{suffix}"
        if suffix == ".nc":
            store[group].to_netcdf(target)
            again = xr.open_dataset(target, engine="h5netcdf")
        else:
            store[group].to_zarr(target, consolidated=False)
            again = xr.open_zarr(target, consolidated=False)
        assert_same(store[group], again.load())
        for name, value in store[group].attrs.items():
            assert np.all(again.attrs[name] == value), name
        again.close()


def test_a_selection_of_a_group_is_written_too(path: Path, tmp_path: Path) -> None:
    store = taqstore.open_store(path)
    observed = next(group for group in store if group.startswith("activations/"))
    part = store[observed].isel(layer=[0], step=slice(None, None, 2))
    part.to_zarr(tmp_path / "part.zarr", consolidated=False)
    assert_same(part, xr.open_zarr(tmp_path / "part.zarr", consolidated=False))


@pytest.mark.parametrize("chunks", ["auto", None])
def test_objects_of_attributes_are_text_that_can_be_read_back(path: Path, chunks: Any) -> None:
    samples = taqstore.open_store(path, chunks=chunks)["samples"]
    assert json.loads(samples.attrs["run"]) == RUN
    assert attribute_of(samples, "run") == RUN
    assert attribute_of(samples, "final") is True
    assert (samples.attrs["edges"], samples.attrs["names"]) == ([0.5, 1], [])
    plain = xr.open_zarr(path, group="samples")
    assert attribute_of(plain, "run") == plain.attrs["run"] == RUN
    assert attribute_of(samples, "not there", {}) == {}


def test_texts_and_numbers_stay_as_they_are() -> None:
    plain = {"a": "x", "b": 1, "c": 2.5, "d": ["x", "y"], "e": [1, 2.5], "f": np.float32(1)}
    assert as_held(plain) == plain
    others = {"a": None, "b": True, "c": ["x", 1], "d": [[1]], "e": {"é": [None]}}
    assert as_held(others) == {
        "a": "null", "b": "true", "c": '["x", 1]', "d": "[[1]]", "e": '{"é": [null]}',
    }  # fmt: skip


def test_what_was_not_written_is_told_by_its_mask(tmp_path: Path) -> None:
    path = tmp_path / "store.zarr"
    write_latents(path, [4, 7, 9], only=[4, 9])
    plain = xr.open_zarr(path, group="latents")
    assert plain["written"].dims == ("image",)
    assert plain["written"].values.tolist() == [True, False, True]
    assert np.isnan(plain["x"].sel(image=7).values).all()
    whole = plain.isel(image=plain["written"].values)
    assert whole["x"].values.tobytes() == np.concatenate([latent(4), latent(9)]).tobytes()
    assert_same(taqstore.open_store(path)["latents"], whole)
    masked = plain["x"].where(plain["written"])
    assert masked.sel(image=9).values.tobytes() == latent(9).tobytes()


def test_a_group_is_selected_and_plotted(path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    latents = taqstore.open_store(path)["latents"]
    line = latents["x"].isel(image=0, height=0, width=0, latent_channel=0)
    (drawn,) = line.plot(x="sigma")
    assert drawn.get_xdata().tolist() == latents["sigma"].values.tolist()
    plt.close("all")
