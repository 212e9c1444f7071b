"""The observed store of SD3-Medium's widths: its statistics agree with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from taqstore.statistics import histogram
from taqstore.statistics.histogram import Layout
from taqstore.store.reader import open_store
from taqstore.testing import make_sd3_store


def test_extrema_are_counted_and_nothing_lies_outside(tmp_path: Path) -> None:
    store = open_store(make_sd3_store(tmp_path / "s.zarr", steps=2, batches=1, blocks=1))
    assert sum(store[path].sizes["layer"] for path in store) == 5
    layout = Layout("float16", 5)
    for path in store:
        group = store[path].load()
        assert group.sizes["channel"] == (6144 if path.endswith("mlp.fc2") else 1536)
        for index in np.ndindex(group["histogram"].shape[:3]):
            counts, low, high = (group[name].values[index] for name in ("histogram", "min", "max"))
            known, _ = histogram.count(np.concatenate([low, high]), layout)
            assert (counts >= known).all()
            occupied = np.flatnonzero(counts)
            assert occupied[[0, -1]].tolist() == np.flatnonzero(known)[[0, -1]].tolist()
            assert group["tensor_min"].values[index] == low.min()
            assert group["tensor_max"].values[index] == high.max()
