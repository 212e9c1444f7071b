"""First steps and shifts of activation quantizers against NumPy over the raw arrays."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from taqstore import TaqError
from taqstore.errors import MissingError
from taqstore.query.activation_start import activation_start
from taqstore.statistics.bins import Layout
from taqstore.statistics.histogram import count

BATCHES, STEPS, LAYERS, CHANNELS = 3, 6, 2, 5
SIGMA = np.linspace(1, 0.1, STEPS).astype(np.float32)
LAYOUT = Layout("float16", 5)


@pytest.fixture(scope="module")
def dataset() -> xr.Dataset:
    rng = np.random.default_rng(7)
    x = rng.normal(rng.normal(size=CHANNELS) * 2, 1, (BATCHES, STEPS, LAYERS, 40, CHANNELS))
    # Two regimes of steps, so that two groups have one best cut.
    x = (x * np.where(np.arange(STEPS) < 2, 8, 1)[:, None, None, None]).astype(np.float16)
    counts = [
        [[count(x[b, s, n], LAYOUT)[0] for n in range(LAYERS)] for s in range(STEPS)]
        for b in range(BATCHES)
    ]
    dims = ("batch", "step", "layer")
    return xr.Dataset(
        {
            "min": ((*dims, "channel"), x.min(axis=3)),
            "max": ((*dims, "channel"), x.max(axis=3)),
            "tensor_min": (dims, x.min(axis=(3, 4))),
            "tensor_max": (dims, x.max(axis=(3, 4))),
            "histogram": ((*dims, "bin"), np.array(counts), LAYOUT.attrs),
        },
        {
            "batch": np.arange(BATCHES),
            "step": np.arange(STEPS) * 2,
            "sigma": ("step", SIGMA),
            "layer": ["mm0.img", "mm0.txt"],
        },
    )


def test_one_group_covers_every_step(dataset: xr.Dataset) -> None:
    found = activation_start(dataset, bits=8)
    alpha = np.abs([dataset["min"], dataset["max"]]).max(axis=(0, 1, 2, 4)).astype(np.float64)
    np.testing.assert_allclose(found["step_size"].values[:, 0], alpha / 127, rtol=1e-12)
    assert found["sigma_lower"].values.tolist() == [0.0]
    assert "shift" not in found


def test_groups_are_cut_where_the_ranges_differ(dataset: xr.Dataset) -> None:
    found = activation_start(dataset, bits=4, groups=2)
    assert found["sigma_lower"].values.tolist() == [SIGMA[1], 0.0]
    every = np.maximum(abs(dataset["min"]), abs(dataset["max"])).values.max(axis=(0, 3))
    expected = np.stack([every[:2].max(axis=0), every[2:].max(axis=0)], axis=1) / 7
    np.testing.assert_allclose(found["step_size"], expected.astype(np.float64), rtol=1e-3)


def test_shifted_steps_cover_what_the_mean_shift_leaves(dataset: xr.Dataset) -> None:
    found = activation_start(dataset, bits=8, groups=2, shifted=True)
    low, high = (dataset[name].values.astype(np.float64) for name in ("min", "max"))
    for group, steps in enumerate((slice(0, 2), slice(2, STEPS))):
        middles = (low + high)[:, steps] / 2
        ema = middles[0]
        for batch in middles[1:]:
            ema = 0.95 * ema + 0.05 * batch
        shift = ema.mean(axis=0)
        left = np.maximum(
            abs(low[:, steps].min(axis=(0, 1)) - shift),
            abs(high[:, steps].max(axis=(0, 1)) - shift),
        )
        got = found.isel(time_group=group)
        np.testing.assert_allclose(got["shift"], shift, atol=1e-4)
        np.testing.assert_allclose(got["step_size"], left.max(axis=1) / 127, rtol=1e-4)


def test_as_many_groups_as_steps(dataset: xr.Dataset) -> None:
    found = activation_start(dataset, bits=8, groups=STEPS, clip="mse")
    assert found.sizes["time_group"] == STEPS
    np.testing.assert_array_equal(found["sigma_lower"], [*SIGMA[:-1], 0])


def test_what_cannot_be_is_refused(dataset: xr.Dataset) -> None:
    with pytest.raises(TaqError, match="cannot see shifted values"):
        activation_start(dataset, bits=8, clip="mse", shifted=True)
    with pytest.raises(TaqError, match="6 steps make 1 to 6 groups"):
        activation_start(dataset, bits=8, groups=7)
    with pytest.raises(MissingError, match="sigma"):
        activation_start(dataset.drop_vars("sigma"), bits=8)
