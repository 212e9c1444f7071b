"""Observations pooled as the source did it can be given to everything that takes its statistics."""

from __future__ import annotations

from pathlib import Path

from taqstore import open_store
from taqstore.analysis import pool, tiers
from taqstore.export.formats import export
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=4, blocks=2, stats_stride=2)


def test_every_statistics_export_works_from_observations(tmp_path: Path) -> None:
    store = open_store(make_store(tmp_path / "s.zarr", shape=SHAPE), chunks=None)
    for name in ("quant-config", "quant-config-multitier", "temporal-analysis", "lut-schedule"):
        assert export(name, store, tmp_path / f"{name}.json").bytes > 0
    assert export("timestep-stats", store, tmp_path / "folder").files > 3


def test_a_pooled_histogram_keeps_its_layout(tmp_path: Path) -> None:
    observed = open_store(make_store(tmp_path / "s.zarr", shape=SHAPE))["activations/mlp.fc2"]
    pooled = pool(observed, site="mlp.fc2")
    for key in ("layout", "mantissa_bits"):
        assert pooled.histogram.attrs[key] == observed.histogram.attrs[key]
    assert pooled.histogram.equals(observed.histogram.sum("batch"))
    assert tiers(pooled, site="mlp.fc2").effective.dims == ("layer",)
