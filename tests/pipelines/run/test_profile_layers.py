"""Layers that `profile` is asked to show are looked at before it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.live_capture import needs_models
from taqstore.testing import make_phase1, make_postgelu


@needs_models
@pytest.mark.parametrize(
    "layer", ["nothing", "mm0.img,nothing", "mm9*", "mm9.img", "mm0.img.mlp.fc1"]
)
def test_layers_that_are_not_there_are_refused_and_nothing_is_drawn(
    taq: Runner, tmp_path: Path, layer: str
) -> None:
    store, figures = tmp_path / "s.zarr", tmp_path / "figures"
    assert taq("ingest", make_postgelu(tmp_path / "stats.npz"), store).code == 0
    found = taq("profile", store, "-o", figures, "--layer", layer)
    assert (found.code, found.out) == (1, ""), found.err
    assert layer.split(",")[-1] in found.err
    assert not figures.exists()


def test_a_name_that_is_none_is_said_before_the_model_runs(taq: Runner, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    assert taq("ingest", make_phase1(tmp_path / "data.npz"), store).code == 0
    found = taq("profile", store, "--model", "sd3-medium", "--layer", "mm0.img,nothing")
    assert found.code == 1
    assert "'nothing' is not known" in found.err
