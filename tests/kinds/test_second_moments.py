"""Groups of second moments: template, reader, and what is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore import open_store
from taqstore.errors import LayoutError, MissingError, TaqError
from taqstore.kinds.second_moments import (
    diagonal_of,
    equal_step_groups,
    moments_of,
    notes,
    second_moments_template,
    tensors,
)
from taqstore.testing.model import RunShape, raw_activations
from taqstore.testing.second_moments import make_second_moments
from taqstore.testing.store import make_store
from taqstore.upkeep import merge, verify_store

SHAPE = RunShape(images=3)
LINEARS = {"mlp.fc2": "mlp.fc2", "attn.qkv": "attn.q_proj"}


def naive(layer: str, site: str, steps: list[int], images: range = range(3)) -> np.ndarray:
    name = f"{layer}.{LINEARS[site]}"
    rows = [
        raw_activations(SHAPE, seed=0, image=image, step=step)[name].astype(np.float16)
        for image in images
        for step in steps
    ]
    flat = np.concatenate([x.reshape(-1, x.shape[-1]) for x in rows]).astype(np.float64)
    return flat.T @ flat


def close(found: np.ndarray, expected: np.ndarray, block_size: int) -> None:
    blocks = np.arange(len(expected)) // block_size
    same = blocks[:, None] == blocks
    root = np.sqrt(np.diagonal(expected))
    error = np.abs(found - np.where(same, expected, 0))
    assert (error <= 1e-7 * np.outer(root, root)).all()


@pytest.mark.parametrize("block_size", [5, 16, None])
@pytest.mark.parametrize("site", LINEARS)
def test_moments_are_those_of_the_tensors(
    tmp_path: Path, site: str, block_size: int | None
) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE, block_size=block_size)
    store = open_store(tmp_path / "s.zarr")
    found = moments_of(store, "mm0.img", site)
    assert found is not None
    steps = SHAPE.stats_steps
    expected = naive("mm0.img", site, steps)
    close(found.full(), expected, block_size or len(expected))
    np.testing.assert_allclose(found.diagonal(), np.diagonal(expected), rtol=1e-6)
    assert found.channels == len(expected)
    assert found.is_full == (block_size is None)

    half = len(steps) - len(steps) // 2
    weighted = moments_of(store, "mm0.img", site, weights=[0.25, 0])
    assert weighted is not None
    close(weighted.full(), naive("mm0.img", site, steps[:half]) / 4, found.block_size)
    assert weighted.count == found.count * half / len(steps) / 4


def test_what_is_not_there(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", shape=SHAPE)
    store = open_store(tmp_path / "s.zarr")
    assert moments_of(store, "mm0.img", "mlp.fc2") is None
    assert tensors(store) == []
    diagonal = diagonal_of(store, "mm0.img", "mlp.fc2")
    expected = np.diagonal(naive("mm0.img", "mlp.fc2", SHAPE.stats_steps))
    np.testing.assert_allclose(diagonal, expected, rtol=1e-5)
    assert diagonal_of(store, "uni7", "mlp.fc2") is None
    assert diagonal_of(store, "mm0.img", "mlp.fc9") is None


def test_weights_fit_the_groups_of_steps(tmp_path: Path) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE)
    store = open_store(tmp_path / "s.zarr")
    for wrong in ([1.0], [1.0, -1.0], [np.nan, 1.0]):
        with pytest.raises(LayoutError, match="2 groups of steps take as many weights"):
            moments_of(store, "mm0.img", "mlp.fc2", weights=wrong)


@pytest.mark.parametrize("images_per_batch", [1, 2])
def test_merged_is_collected_at_once(tmp_path: Path, images_per_batch: int) -> None:
    """Batches are copied, so every stored value is the same; so are then float64 sums of them."""
    for name, images in (("a", [0, 1]), ("b", [2, 3]), ("whole", [0, 1, 2, 3])):
        make_second_moments(
            tmp_path / name, shape=SHAPE, images=images, images_per_batch=images_per_batch
        )
    assert not verify_store(tmp_path / "whole").damage
    merge(tmp_path / "a", tmp_path / "b", tmp_path / "m.zarr")
    merged, whole = open_store(tmp_path / "m.zarr"), open_store(tmp_path / "whole")
    assert len(tensors(whole)) > 4
    for layer, site in tensors(whole):
        one, other = (moments_of(store, layer, site) for store in (merged, whole))
        assert one
        assert other
        np.testing.assert_array_equal(one.blocks, other.blocks)
        assert one.count == other.count
    for path in whole:
        assert merged[path].drop_attrs().identical(whole[path].drop_attrs())


def test_the_same_images_are_not_counted_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_second_moments(tmp_path / name, shape=SHAPE)
    with pytest.raises(TaqError, match=r"image 0, 1, 2 of \S+b is in \S+a too"):
        merge(tmp_path / "a", tmp_path / "b", tmp_path / "m.zarr")


def test_nothing_complete_yet(tmp_path: Path) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE)
    dataset = open_store(tmp_path / "s.zarr", incomplete=True)["second_moments/mlp.fc2"]
    none = dataset.assign_coords(written=dataset["written"] & False)
    with pytest.raises(MissingError, match="no second moments are complete"):
        moments_of({"second_moments/mlp.fc2": none}, "mm0.img", "mlp.fc2")


def test_left_out_positions_are_told(tmp_path: Path) -> None:
    make_second_moments(tmp_path / "s.zarr", shape=SHAPE)
    dataset = open_store(tmp_path / "s.zarr")["second_moments/mlp.fc2"].load()
    assert notes({"second_moments/mlp.fc2": dataset}) == []
    dataset["left_out"][0, 1, 2] = 4
    [line] = notes({"second_moments/mlp.fc2": dataset})
    assert line.startswith(
        "second_moments/mlp.fc2: 4 positions with non-finite values are left out"
    )


def test_templates_that_cannot_be() -> None:
    given: dict[str, Any] = {"layers": ["mm0.img"], "channels": 8, "images": [[0]]}
    given |= {"steps": [0, 2], "sigmas": [1.0, 0.5], "timesteps": np.array([9.0, 5.0])}
    for group_of in ([0], [1, 1], [0, 2], [1, 0]):
        with pytest.raises(LayoutError, match="groups of steps must be 0, 1"):
            second_moments_template("mlp.fc2", block_size=4, step_group_of=group_of, **given)
    with pytest.raises(LayoutError, match="at least one"):
        second_moments_template("mlp.fc2", block_size=-1, step_group_of=[0, 1], **given)
    template = second_moments_template("mlp.fc2", block_size=3, step_group_of=[0, 1], **given)
    assert template.sizes["channel_block"] == 3
    assert template.coords["sigma_upper"][1].tolist() == [1.0, 0.5]
    assert equal_step_groups(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
