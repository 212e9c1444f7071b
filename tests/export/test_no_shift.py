"""`export adaround --no-shift`: input steps for loaders that subtract no shift."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.weight_store import LAYERS, RUN, SIGMA_LOWER, write_weights
from taqstore import open_store
from taqstore.errors import MissingError
from taqstore.export.formats import export
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.names import array_key, path_in_block

SIGMA = np.float32([1.0, 0.8, 0.5, 0.3])


def observed(layers: tuple[str, ...] = LAYERS[:-1], steps: int = 4) -> xr.Dataset:
    """Extrema of two batches; one layer was zero throughout."""
    rng = np.random.default_rng(3)
    low = -abs(rng.normal(size=(2, steps, len(layers), 10))).astype(np.float32)
    high = abs(rng.normal(size=low.shape)).astype(np.float32)
    low[:, :, 0], high[:, :, 0] = 0, 0
    dims = ("batch", "step", "layer", "channel")
    return xr.Dataset(
        {
            "min": (dims, low), "max": (dims, high),
            "tensor_min": (dims[:3], low.min(-1)), "tensor_max": (dims[:3], high.max(-1)),
        },
        {"step": np.arange(steps) * 5, "sigma": ("step", SIGMA[:steps]), "layer": list(layers)},
    )  # fmt: skip


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> dict[str, xr.Dataset]:
    store = open_store(write_weights(tmp_path_factory.mktemp("w") / "s.zarr"), chunks=None)
    return {**{path: store[path] for path in store}, "activations/mlp.fc2": observed()}


def members(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted((folder / "weights").iterdir()):
        with np.load(path) as file:
            found |= {f"{path.stem}.{key}": file[key] for key in file.files}
    return found


def test_steps_are_those_of_the_observed_absmax(groups: Mapping[str, Any], tmp_path: Path) -> None:
    plain = export("adaround", groups, tmp_path / "plain")
    summary = export("adaround", groups, tmp_path / "w", no_shift=True)
    assert any("does not see a_shift" in note for note in plain.notes)
    assert not any("a_shift" in note for note in summary.notes[:-1] if "no a_shift" not in note)
    told = [note for note in summary.notes if "recomputed" in note]
    assert len(told) == 1
    assert "3 of 21 linears, mm0.img.mlp.fc2" in told[0]
    before, after = members(tmp_path / "plain"), members(tmp_path / "w")
    assert not [key for key in after if key.endswith("a_shift")]
    data = groups["activations/mlp.fc2"]
    changed = set()
    for block in quantized_blocks(groups):
        for linear in quantized_linears(groups, block):
            if linear.name.site != "mlp.fc2":
                continue
            stem = f"{block}.{array_key(path_in_block(linear.name))}"
            row = list(data["layer"].values).index(linear.name.layer)
            for group, inside in enumerate((SIGMA_LOWER["mlp.fc2"][0] <= SIGMA,
                                            SIGMA_LOWER["mlp.fc2"][0] > SIGMA)):  # fmt: skip
                ends = [abs(data[name].values[:, inside, row]).max() for name in ("min", "max")]
                expected = max(ends) / (2 ** (int(linear.input.bits[group]) - 1) - 1) or 1.0
                found = after[f"{stem}__a_scale"][group]
                np.testing.assert_allclose(found, expected, rtol=1e-7)
            changed |= {f"{stem}__{name}" for name in ("a_scale", "a_zero_point", "a_shift")}
    for key, values in before.items():
        if key not in changed:
            assert after[key].tobytes() == values.tobytes(), key


def test_the_rule_is_that_of_the_run(groups: Mapping[str, Any], tmp_path: Path) -> None:
    """Mse needs histograms, which are not there: it is asked for, not passed over."""
    other = {
        path: data.assign_attrs(run={**RUN, "activation_clip": "mse"})
        if path.startswith("weights/")
        else data
        for path, data in groups.items()
    }
    with pytest.raises(MissingError, match="histogram"):
        export("adaround", other, tmp_path / "w", no_shift=True)


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (None, r"no activations/mlp\.fc2, and mm0\.img\.mlp\.fc2 is shifted; taqstore collect"),
        (observed(("mm0.img", "mm0.txt")), r"no activations of mm1\.img\.mlp\.fc2; taqstore"),
        (observed(steps=3), r"no step was observed in group 1 of the steps of mm0\.img\.mlp\.fc2"),
    ],
)
def test_what_was_not_observed_is_named(
    groups: Mapping[str, Any], tmp_path: Path, activations: xr.Dataset | None, message: str
) -> None:
    given = {**groups, "activations/mlp.fc2": activations}
    kept = {path: data for path, data in given.items() if data is not None}
    with pytest.raises(MissingError, match=message):
        export("adaround", kept, tmp_path / "w", no_shift=True)
    assert not (tmp_path / "w").exists()
