"""Values that are no numbers: counted, placed and ordered as naive NumPy finds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from support.builders import pooled_template, pooled_values, write_latents, write_pooled
from support.cli_runner import Runner
from support.planted import SHAPE, STEPS, planted_store, put, tensors
from taqstore.kinds.nonfinite import nonfinite, notes
from taqstore.query.select import select
from taqstore.store.reader import open_store
from taqstore.testing import make_store
from taqstore.upkeep import info

# The last step, one image of several, overflow of float16, -Inf alone.
PLANTS = {
    (1, STEPS[-1], "mm1.img.mlp.fc2"): put(np.nan, 0, 3),
    (1, STEPS[-1], "mm0.txt.mlp.fc2"): put(1e6, 1),
    (2, STEPS[2], "mm1.txt.attn.q_proj"): put(-np.inf, 2),
    (0, STEPS[2], "mm1.img.mlp.fc1"): put(-7e4, 1, channel=5),
    (2, STEPS[-1], "mm0.img.attn.o_proj"): put(np.nan, 5),
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("planted") / "s.zarr", PLANTS)


def naive() -> dict[str, list[int]]:
    """NaN, +Inf and -Inf of every site, counted in the tensors themselves."""
    found: dict[str, list[int]] = {}
    for image in range(SHAPE.images):
        for step in STEPS:
            for name, x in tensors(image, step, PLANTS).items():
                if name.endswith(("k_proj", "v_proj")):  # they read what q_proj reads
                    continue
                with np.errstate(over="ignore"):
                    half = x.astype(np.float16)
                tests = (np.isnan(half), np.isposinf(half), np.isneginf(half))
                site = ".".join(name.split(".")[2:]).replace("q_proj", "qkv")
                total = found.setdefault(f"activations/{site}", [0, 0, 0])
                found[f"activations/{site}"] = [
                    n + int(t.sum()) for n, t in zip(total, tests, strict=True)
                ]
    return {path: counts for path, counts in found.items() if any(counts)}


@pytest.mark.parametrize("chunks", ["auto", None])
def test_counts_equal_naive_numpy_and_the_first_is_in_front(store: Path, chunks: None) -> None:
    found = nonfinite(open_store(store, chunks=chunks))
    assert {one.group: [one.nan, one.plus_inf, one.minus_inf] for one in found} == naive()
    assert [one.place for one in found] == [
        f"mm1.img at step {STEPS[2]}, image 0",
        f"mm1.txt at step {STEPS[2]}, image 2",
        f"mm0.img at step {STEPS[-1]}, image 2",
        f"mm0.txt at step {STEPS[-1]}, image 1",
    ]
    last = found[-1]
    assert (last.layers, last.steps, last.images) == (("mm0.txt", "mm1.img"), (STEPS[-1],), (1,))
    assert last.sentence == (
        f"activations/mlp.fc2: 3 non-finite values (2 NaN, 1 +Inf), first in mm0.txt at step "
        f"{STEPS[-1]}, image 1; layers mm0.txt, mm1.img; steps {STEPS[-1]}; images 1"
    )


def test_a_slice_tells_of_itself_alone(store: Path) -> None:
    group = open_store(store)["activations/mlp.fc2"]
    asked = {"step": f"{STEPS[-1]}", "batch": "1", "layer": "mm1.img"}
    (one,) = nonfinite({"activations/mlp.fc2": select(group, **asked)})
    assert (one.nan, one.plus_inf, one.layers) == (2, 0, ("mm1.img",))
    scalar = group.sel(layer="mm1.img", batch=1).isel(step=-1)
    assert nonfinite({"activations/mlp.fc2": scalar})[0].place == one.place
    assert notes({"activations/mlp.fc2": select(group, batch="0")}) == []


def test_a_sound_store_and_one_without_statistics_tell_nothing(tmp_path: Path) -> None:
    assert notes(open_store(make_store(tmp_path / "s.zarr", shape=SHAPE))) == []
    write_latents(tmp_path / "l.zarr", [0, 1])
    assert notes(open_store(tmp_path / "l.zarr")) == []


def test_channel_histograms_are_told_of_by_the_observations_beside_them(store: Path) -> None:
    opened = open_store(store)
    groups = {**opened, "channel_histograms/mlp.fc2": xr.Dataset()}
    assert notes(groups, ["channel_histograms/mlp.fc2"]) == notes(opened, ["activations/mlp.fc2"])


def test_extrema_of_pooled_sources_are_told(tmp_path: Path) -> None:
    values = pooled_values(pooled_template())
    values["avg_max"][1, 3, 4] = np.inf
    values["avg_min"][2, 0, :2] = np.nan
    write_pooled(tmp_path / "s.zarr", values)
    (one,) = nonfinite(open_store(tmp_path / "s.zarr"))
    assert one.sentence == (
        "pooled/timestep_stats/mlp.fc2: 3 non-finite extrema (2 NaN, 1 +Inf), first in mm1.txt at "
        "step 3; layers mm0.img, mm1.txt; steps 3, 6"
    )


def test_a_pooled_source_lacks_nothing_where_it_saw_nothing() -> None:
    low = np.zeros((2, 2, 3))
    low[0, 1] = np.nan
    dims = ("step", "layer", "channel")
    seen = (("step", "layer"), [[2, 0], [2, 2]])
    coords = {"step": [0, 1], "layer": ["mm0.img", "mm1.img"]}
    group = xr.Dataset({"avg_min": (dims, low), "avg_max": (dims, low), "n_batches": seen}, coords)
    assert notes({"pooled/timestep_stats/mlp.fc2": group}) == []
    assert notes({"pooled/timestep_stats/mlp.fc2": group.drop_vars("n_batches")}) != []


def test_info_looks_at_a_bounded_number_of_batches(
    store: Path, taq: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(info, "LOOKED_AT", SHAPE.images - 1)
    done = taq("info", store, "activations/mlp.fc2")
    assert "mlp.fc2: of so many batches, taqstore verify counts the non-finite values" in done.err
    assert "first in" not in done.err
    assert "first in" in taq("verify", store).err
