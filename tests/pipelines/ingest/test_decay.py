"""A source that decays after it was stored loses nothing that is in the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from taqstore.pipelines.ingest import ingest

from taqstore import open_store
from taqstore.run.mode import Mode
from taqstore.testing import RunShape, damage, make_run_folder
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(images=2, steps=6, blocks=2, stats_stride=2)


def test_a_decayed_source_overwrites_nothing(tmp_path: Path) -> None:
    """Step 2 is bad at first; by the time it is mended, step 0 has gone bad."""
    run = make_run_folder(tmp_path / "run", shape=SHAPE, parts=("activations",))
    steps = run / "activations" / "timestep_stats"
    good = {step: (steps / f"step_{step}.npz").read_bytes() for step in (0, 2)}
    damage.truncate(steps / "step_2.npz")
    store = tmp_path / "s.zarr"
    assert ingest([run], store).problems
    groups = list(open_store(store))
    before = {path: open_store(store)[path].load() for path in groups}
    assert all(dataset.step.values.tolist() == [0, 4] for dataset in before.values())

    (steps / "step_2.npz").write_bytes(good[2])
    damage.truncate(steps / "step_0.npz")
    summary = ingest([run], store, mode=Mode(resume=True))
    assert any("stored in part" in line and "step_0.npz" in line for line in summary.problems)
    assert all(line.count("\n") == 0 for line in summary.problems)
    for path, dataset in before.items():
        assert open_store(store)[path].load().equals(dataset)
    assert verify_store(store).damage == ()

    (steps / "step_0.npz").write_bytes(good[0])
    assert ingest([run], store, mode=Mode(resume=True)).problems == []
    after = open_store(store)
    for path, dataset in before.items():
        assert after[path].step.values.tolist() == [0, 2, 4]
        for name in dataset.data_vars:
            if "step" in dataset[name].dims:
                assert np.array_equal(after[path][name].sel(step=[0, 4]), dataset[name])
