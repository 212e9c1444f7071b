"""Quantities derived of second moments, beside naive ones of the raw tensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from taqstore import open_store
from taqstore.analysis import moments
from taqstore.errors import MissingError, MisuseError
from taqstore.query import analyze
from taqstore.testing import RunShape, make_second_moments, make_store, raw_activations

SHAPE = RunShape(images=2, steps=8)
GROUPS = 2


def rows_of(layer: str, group: int) -> np.ndarray:
    """All rows (row, channel) of a layer's mlp.fc2 at the steps of a group, as observed."""
    steps = np.array_split(SHAPE.stats_steps, GROUPS)[group]
    seen = [
        raw_activations(SHAPE, seed=0, image=image, step=int(step))[f"{layer}.mlp.fc2"]
        for image in range(SHAPE.images)
        for step in steps
    ]
    rows = [x.reshape(-1, x.shape[-1]).astype(np.float16) for x in seen]
    return np.concatenate(rows).astype(np.float64)


def naive(x: np.ndarray, block_size: int, top: int) -> dict[str, float]:
    """By singular values and NumPy's own correlation, block by block."""
    parts = [x[:, start : start + block_size] for start in range(0, x.shape[1], block_size)]
    values = np.concatenate([np.linalg.svd(part, compute_uv=False) ** 2 for part in parts])
    p = np.sort(values / values.sum())[::-1]
    pairs = [
        np.abs(np.corrcoef(part.T)[np.triu_indices(part.shape[1], 1)])
        for part in parts
        if part.shape[1] > 1
    ]
    every = np.concatenate(pairs)
    return {
        "energy": (x**2).sum(axis=1).mean(),
        "effective_rank": np.exp(-(p[p > 1e-300] * np.log(p[p > 1e-300])).sum()),
        "participation_ratio": 1 / (p**2).sum(),
        "top_share": p[:top].sum(),
        "mean_correlation": every.mean(),
        "max_correlation": every.max(),
    }


@pytest.mark.parametrize("block_size", [16, 7, None])
@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_they_are_those_of_the_tensors(
    tmp_path: Path, block_size: int | None, fraction: float
) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE, block_size=block_size, step_groups=GROUPS)
    found = analyze("moments", open_store(tmp_path / "s.zarr"), top_fraction=fraction)
    result = found["second_moments/mlp.fc2"].load()
    for layer in ("mm0.img", "mm1.txt"):
        if layer not in result["layer"].values:
            continue
        for group in range(GROUPS):
            x = rows_of(layer, group)
            expected = naive(x, block_size or x.shape[1], max(1, int(fraction * x.shape[1])))
            one = result.sel(layer=layer, step_group=group)
            for name, value in expected.items():
                np.testing.assert_allclose(one[name], value, rtol=1e-4, err_msg=name)
    assert result.attrs["analysis"] == "moments"


def test_what_was_not_seen_is_not_known(tmp_path: Path) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE)
    data = open_store(tmp_path / "s.zarr")["second_moments/mlp.fc2"].load()
    data["count"][:, 1] = 0
    data["second_moment"][:, 1] = 0
    result = moments(data)
    for name in result:
        assert np.isnan(result[name].values[1]).all(), name
        assert np.isfinite(result[name].values[0]).all(), name


def test_channels_that_do_not_move_have_no_correlation() -> None:
    x = np.array([[1.0, 5, 0, 1], [2.0, 5, 0, -2], [3.0, 5, 0, 1]])
    data = xr.Dataset(
        {
            "second_moment": (
                ("step_group", "layer", "channel_block", "channel_row", "channel_column"),
                (x.T @ x)[None, None, None],
            ),
            "channel_sum": (("step_group", "layer", "channel"), x.sum(axis=0)[None, None]),
            "count": (("step_group", "layer"), [[3]]),
        },
        {"layer": ["mm0.img"]},
    )
    result = moments(data)
    expected = abs(np.corrcoef(x[:, 0], x[:, 3])[0, 1])
    np.testing.assert_allclose(result["max_correlation"], [[expected]], atol=1e-12)
    np.testing.assert_allclose(result["mean_correlation"], [[expected]], atol=1e-12)


@pytest.mark.parametrize("word", ["step", "sigma", "channel"])
def test_sums_are_not_sliced(tmp_path: Path, word: str) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE)
    with pytest.raises(MisuseError, match=f"moments cannot choose by {word}"):
        analyze("moments", open_store(tmp_path / "s.zarr"), selection={word: "0"})


def test_other_groups_are_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", shape=SHAPE)
    store = open_store(tmp_path / "s.zarr")
    with pytest.raises(MissingError, match="no statistics second_moments"):
        analyze("moments", store)
    with pytest.raises(MissingError, match="second_moment"):
        moments(store["activations/mlp.fc2"])
