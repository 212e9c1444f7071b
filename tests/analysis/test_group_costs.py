"""Costs of groups of steps do not depend on which layers are asked together."""

from __future__ import annotations

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from taqstore.analysis.costs.group_costs import Histograms, run_costs
from taqstore.quantization.candidates import Scheme
from taqstore.quantization.spread import Spread
from taqstore.statistics import Layout, count

LAYOUT = Layout("float16", 5)


def histograms(seed: int, *, layers: int, steps: int) -> Histograms:
    """Layers of very different sizes, skewed: their candidates hardly overlap."""
    rng = np.random.default_rng(seed)
    size = np.exp2(rng.uniform(-6, 6, (layers, 1, 1)))
    values = (rng.gamma(2.0, 1.0, (layers, steps, 300)) - rng.uniform(0, 3)) * size
    counts = [[count(row.astype(np.float16), LAYOUT)[0] for row in layer] for layer in values]
    array = xr.DataArray(np.array(counts), dims=("layer", "step", "bin"))
    return Histograms(array, Spread.of(LAYOUT), [])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([3, 4, 8]), st.booleans())
def test_a_layer_costs_the_same_alone_and_among_others(
    seed: int, bits: int, symmetric: bool
) -> None:
    every = histograms(seed, layers=3, steps=4)
    scheme = Scheme(bits, symmetric=symmetric)
    together = run_costs(every, scheme, shared=False)
    for layer in range(3):
        one = Histograms(every.counts.isel(layer=[layer]), every.spread, [])
        for found, wanted in zip(together, run_costs(one, scheme, shared=False), strict=True):
            xr.testing.assert_identical(found.isel(layer=[layer]), wanted)
