"""Groups of steps priced once are those of `groups`, asked once for each answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from taqstore.analysis import groups
from taqstore.analysis.groups import curves_of
from taqstore.analysis.held import held
from taqstore.errors import TaqError
from taqstore.store.reader import open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(
    images=3, steps=7, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(4, 3),
    channels=4, stats_stride=1, cache_stride=7,
)  # fmt: skip
KEPT = ["optimal_error", "cluster_error", "sigma_error", "group", "group_count"]


@pytest.fixture(scope="module", params=["held", "lazy"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path: Path = make_store(tmp_path_factory.mktemp("made") / "s.zarr", shape=SHAPE)
    found = open_store(path, chunks="auto")["activations/mlp.fc2"]
    return held(found) if request.param == "held" else found


@pytest.mark.parametrize("bits", [3, 8])
def test_every_answer_is_that_of_its_own_call(site: xr.Dataset, bits: int) -> None:
    asked = [(True, None, 0.05), (False, None, 0.3), (True, 4, None), (False, 2, None)]
    for (shared, count, tolerance), found in zip(
        asked, curves_of(site, bits=bits, asked=asked), strict=True
    ):
        alone = groups(site, bits=bits, shared=shared, count=count, tolerance=tolerance)
        assert found.identical(alone[KEPT])
        assert found.sizes["groups"] == site.sizes["step"]


def test_more_groups_than_steps_are_refused_alike(site: xr.Dataset) -> None:
    with pytest.raises(TaqError) as first:
        groups(site, count=8)
    with pytest.raises(TaqError) as second:
        curves_of(site, bits=8, asked=[(False, None, 0.1), (True, 8, None)])
    assert str(second.value) == str(first.value)
