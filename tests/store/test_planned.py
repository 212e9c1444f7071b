"""A store that is planned: its groups as a run would open them, and not a byte changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.same_files import files_of
from taqstore.errors import LayoutError, StoreError
from taqstore.kinds.templates import blocks_template, latents_template
from taqstore.layout.item_bytes import item_bytes
from taqstore.layout.template import Array, Template
from taqstore.place.location import Location
from taqstore.store.planned import plan_store
from taqstore.store.writer import create_store

SHAPE = (3, 5, 16)
STEPS = 4


def latents(*images: int, shape: tuple[int, int, int] = SHAPE, cfg: float = 2.0) -> Template:
    return latents_template(
        images=images,
        prompts=[f"prompt {image}" for image in images],
        seeds=[100 + image for image in images],
        cfg_weight=cfg,
        sigmas=np.linspace(1, 0, STEPS, dtype=np.float32),
        timesteps=np.linspace(1000, 0, STEPS, dtype=np.float32),
        shape=shape,
        attrs={},
    )


def write(url: Path | str, template: Template, *images: int) -> int:
    """Write these images; bytes of the last."""
    size, labels = 0, list(template.coords["image"][1])
    with create_store(url) as writer:
        group = writer.group(template)
        for image in images:
            at = labels.index(image)
            values = np.random.default_rng(image).normal(size=(1, STEPS, *SHAPE))
            size = group.put("x", (at, 0, 0, 0, 0), values.astype(np.float32))
            group.commit([(at,)])
    return size


@pytest.mark.parametrize("url", ["{folder}/s.zarr", "memory://planned/{folder}/s.zarr"])
def test_what_is_whole_is_found_by_its_label(tmp_path: Path, url: str) -> None:
    where = url.format(folder=tmp_path)
    size = write(where, latents(0, 1, 2, 7), 0, 7)
    before = files_of(tmp_path, ".")
    planned = plan_store(where)
    group = planned.group(latents(7, 5, 1, 0, 9))
    assert group.written().tolist() == [True, False, False, True, False]
    assert group.complete([(0,), (3,)])
    assert not group.complete([(0,), (1,)])
    values = np.zeros((1, STEPS, *SHAPE), np.float32)
    assert group.put("x", (1, 0, 0, 0, 0), values) == size
    assert item_bytes(group.template, (1,)) == {"x": size}
    group.commit([(1,)])
    planned.record({})
    planned.finish()
    assert files_of(tmp_path, ".") == before
    assert planned.group(latents(0, 1), replace=True).written().tolist() == [False, False]
    assert planned.node("latents") is None, "what is replaced is gone for the run"


def test_a_store_that_is_not_there_is_planned_and_not_made(tmp_path: Path) -> None:
    for where in (tmp_path / "a" / "b.zarr", "memory://planned/none.zarr"):
        with plan_store(where) as planned:
            assert planned.node("latents") is None
            assert not planned.group(latents(0, 1)).written().any()
            assert not planned.group(latents(0, 1), replace=True).written().any()
        assert Location.parse(where).backend().read("zarr.json") is None
    assert list(tmp_path.iterdir()) == []


def test_what_differs_is_refused_in_the_same_words(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    write(store, latents(0, 1), 0)
    for other in (latents(0, shape=(3, 4, 16)), latents(0, cfg=3.0)):
        with pytest.raises(LayoutError) as planned:
            plan_store(store).group(other)
        with pytest.raises(LayoutError) as written, create_store(store) as writer:
            writer.group(other)
        assert str(planned.value) == str(written.value)
    (store / "latents" / "zarr.json").unlink()
    with pytest.raises(StoreError, match="document is missing"):
        plan_store(store).group(latents(0))


@pytest.mark.parametrize("boundaries", [1, 3])
@pytest.mark.parametrize("compress", [False, True])
def test_bytes_of_an_item_are_told_before_it_is_written(
    tmp_path: Path, boundaries: int, compress: bool
) -> None:
    """Shards of several chunks, shards cut off at the end, and chunks alone."""
    template = blocks_template(
        "img",
        images=[0, 1],
        steps=[0, 1, 2],
        sigmas=[1, 0.5, 0.2],
        timesteps=np.array([3, 2, 1], np.float32),
        boundaries=range(boundaries),
        shape=(1, 7, 3),
        attrs={},
    )
    alone = Array("mean", ("image", "step", "token"), "float32", compress=compress)
    parted = Array("max", ("image", "step", "token"), "float16", split="token", compress=compress)
    arrays = (*template.arrays, alone, parted)
    template = Template(**{**vars(template), "arrays": arrays, "shard": {"token": 4}})
    planned = plan_store(tmp_path / "s.zarr").group(template)
    written, rng = dict.fromkeys(("x", "mean", "max"), 0), np.random.default_rng(3)
    with create_store(tmp_path / "s.zarr") as writer:
        group = writer.group(template)
        for array in template.arrays:
            for start in (0, 4):
                end = 4 if start == 0 else 3
                sizes = {**template.sizes, "image": 1, "step": 1, "token": end}
                values = rng.normal(size=[sizes[d] for d in array.dims]).astype(array.dtype)
                at = [start if dim == "token" else 0 for dim in array.dims]
                written[array.name] += group.put(array.name, at, values)
                planned.put(array.name, at, values)
    told = item_bytes(template, (0, 0), planned.shares())
    assert told == pytest.approx(written, rel=0.02 if compress else 0)
    assert told["x"] == written["x"]
