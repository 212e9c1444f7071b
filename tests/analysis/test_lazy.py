"""What every analysis promises: laziness, few tasks, equal results, and a stamp."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis import ANALYSES, pool
from taqstore.analysis.shared.results import RESULTS
from taqstore.names import VARIABLES

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "scales": ("scales", {}),
    "affine scales": ("scales", {"symmetric": False, "per": "channel"}),
    "percentile scales": ("scales", {"clip": "percentile", "percentile": 99.5}),
    "shifts": ("shifts", {}),
    "outliers": ("outliers", {}),
    "temporal": ("temporal", {}),
    "tiers": ("tiers", {"site": "mlp.fc2"}),
    "p999 tiers": ("tiers", {"clip": "hist_p999"}),
    "schedule": ("schedule", {}),
    "lut": ("schedule", {"rule": "lut"}),
    "diagnostics": ("diagnostics", {}),
}

SUMMED = ("tensor_mean", "tensor_std", "slope", "correlation", "coefficient", "fitted", "r2")
"""Sums of floats whose order follows the blocks; everything else is equal to the last bit."""


@pytest.fixture(scope="module")
def sources() -> dict[str, xr.Dataset]:
    pooled = run_groups(*synthetic_run())["pooled/timestep_stats/mlp.fc2"]
    return {"pooled": pooled, "observed": observed("mlp.fc2", activations("mlp.fc2"))}


def chunked(dataset: xr.Dataset) -> xr.Dataset:
    """As the store hands it out: one batch, or some layers, per block; awkwardly cut steps."""
    return dataset.chunk({"batch": 1} if "batch" in dataset.dims else {"layer": 2, "step": 4})


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("computed")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("source", ["pooled", "observed"])
def test_lazy_and_equal(sources: dict[str, xr.Dataset], case: str, source: str) -> None:
    name, options = CASES[case]
    eager = ANALYSES[name].load()(sources[source], **options)
    with dask.config.set(scheduler=forbidden):
        lazy = ANALYSES[name].load()(chunked(sources[source]), **options)
    assert all(variable.chunks for variable in lazy.data_vars.values())
    loaded = lazy.compute(scheduler="synchronous")
    summed = [name for name in SUMMED if name in eager]
    xr.testing.assert_identical(loaded.drop_vars(summed), eager.drop_vars(summed))
    xr.testing.assert_allclose(loaded[summed], eager[summed], rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("source", ["pooled", "observed"])
def test_stamped_and_documented(sources: dict[str, xr.Dataset], case: str, source: str) -> None:
    name, options = CASES[case]
    got = ANALYSES[name].load()(sources[source], **options)
    assert got.attrs["analysis"] == name
    assert got.attrs["store_digest"] == "feed"
    for key, value in options.items():
        assert got.attrs[key] == value
    for variable in got.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["description"]
    assert "original_dtype" not in str(got.attrs)
    got.drop_vars("image", errors="ignore").to_netcdf()  # every attribute fits a file


@pytest.mark.parametrize("case", CASES)
def test_tasks_do_not_grow_with_layers(sources: dict[str, xr.Dataset], case: str) -> None:
    """Blocks make tasks; layers and channels in a block do not."""
    name, options = CASES[case]
    one = sources["observed"]
    many = xr.concat([one] * 5, dim="layer", data_vars="minimal").assign_coords(
        layer=[f"uni{i}" for i in range(5 * one.sizes["layer"])]
    )

    def count(dataset: xr.Dataset) -> int:
        graph = ANALYSES[name].load()(dataset.chunk({"batch": 1}), **options).__dask_graph__()
        return len(dict(graph or {}))

    # Averages need all batches in one block: dask cuts them anew by size, not by layer.
    most = 1.2 if case == "p999 tiers" else 1.0
    assert count(one) <= count(many) <= most * count(one)


def test_pooling_is_lazy(sources: dict[str, xr.Dataset]) -> None:
    with dask.config.set(scheduler=forbidden):
        lazy = pool(chunked(sources["observed"]), site="mlp.fc2")
    eager = pool(sources["observed"], site="mlp.fc2")
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), eager)


def test_a_batch_never_written_makes_results_unknown(sources: dict[str, xr.Dataset]) -> None:
    """NaN is not skipped: what the batch would have said is not known."""
    broken = sources["observed"].copy(deep=True).drop_vars(["tensor_min", "tensor_max"])
    broken["min"][1, 2, 0, 3] = np.nan
    alpha = ANALYSES["scales"].load()(broken)["alpha"]
    assert np.isnan(alpha.values[2, 0])
    assert np.isfinite(alpha.values).sum() == alpha.size - 1
    shift = ANALYSES["shifts"].load()(broken)["shift"]
    assert np.isnan(shift.values).sum() == 1
    assert len(STEPS) == alpha.sizes["step"]


def test_names_of_results_do_not_contradict_the_store() -> None:
    assert not set(RESULTS) & set(VARIABLES)
    assert "scale" not in RESULTS
