"""Data that are all zero are data: written, verified and read wherever a store lies.

zarr leaves out chunks that hold fill alone, unless it is told to keep them each time an array is
opened; every file of an item is written here, whatever is in it.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec import register_implementation
from fsspec.implementations.local import LocalFileSystem

from support.builders import pooled_template
from taqstore import create_store, open_store
from taqstore.kinds.templates import channel_histograms_template
from taqstore.layout.template import Array, Template
from taqstore.statistics.histogram import Layout
from taqstore.testing import RunShape
from taqstore.testing.store import activations_templates
from taqstore.upkeep.verify import verify_store


class PlainDisk(LocalFileSystem):  # type: ignore[misc]
    """A disk that taqstore knows only through fsspec."""

    protocol = "plain-disk"

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=True, **options)


register_implementation("plain-disk", PlainDisk, clobber=True)
SHAPE = RunShape(images=2)
LAYOUT = Layout("float16", 3)


def compressed_templates() -> Iterator[Template]:
    """A template of every kind that has a compressed array."""
    activations = activations_templates(SHAPE, layout=LAYOUT)
    yield activations[0]
    yield channel_histograms_template(activations[0], LAYOUT)
    yield pooled_template()


TEMPLATES = {template.path: template for template in compressed_templates()}
PLACES: dict[str, Callable[[Path], str]] = {
    "a path": lambda folder: str(folder / "s.zarr"),
    "a file URL": lambda folder: f"file://{folder}/s.zarr",
    "memory": lambda folder: f"memory://{uuid.uuid4().hex}/s.zarr",
    "fsspec": lambda folder: f"plain-disk://{folder}/s.zarr",
}


def write_zeros(address: str, template: Template) -> None:
    with create_store(address) as writer:
        group = writer.group(template)
        for array in template.arrays:
            for start in starts(template, array):
                shape = tuple(
                    min(extent, n - s)
                    for extent, n, s in zip(
                        template.shard_shape(array), template.shape(array), start, strict=True
                    )
                )
                group.put(array.name, start, np.zeros(shape, array.dtype))
        sizes = (range(template.sizes[dim]) for dim in template.item_dims)
        group.commit(list(itertools.product(*sizes)))


def starts(template: Template, array: Array) -> Iterator[tuple[int, ...]]:
    pairs = zip(template.shape(array), template.shard_shape(array), strict=True)
    return itertools.product(*(range(0, n, extent) for n, extent in pairs))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("path", TEMPLATES)
def test_zeros_are_written_verified_and_read(tmp_path: Path, path: str, place: str) -> None:
    template, address = TEMPLATES[path], PLACES[place](tmp_path)
    assert any(array.compress for array in template.arrays)
    write_zeros(address, template)
    report = verify_store(address)
    assert report.damage == ()
    assert report.notes == ()
    for chunks in ("auto", None):
        dataset = open_store(address, chunks=chunks)[path]  # type: ignore[arg-type]
        assert "written" not in dataset.coords, "everything is flagged"
        for array in template.arrays:
            values = dataset[array.name].values
            assert values.shape == template.shape(array)
            assert (values == 0).all(), array.name


def test_coordinates_that_become_zero_are_zero(tmp_path: Path) -> None:
    """A mended source may say 0 where it said something else, of images not written yet."""
    from taqstore.kinds.templates import latents_template

    for seeds in ([7, 8], [0, 0]):
        template = latents_template(
            images=[0, 1],
            prompts=["a", "b"] if seeds[0] else ["", ""],
            seeds=seeds,
            cfg_weight=float(seeds[0]),
            sigmas=np.float32([1, 0]),
            timesteps=np.float32([1000, 0]),
            shape=(2, 2, 2),
            attrs={},
        )
        with create_store(tmp_path / "s.zarr") as writer:
            writer.group(template)
    dataset = open_store(tmp_path / "s.zarr", incomplete=True)["latents"]
    assert dataset["seed"].values.tolist() == [0, 0]
    assert dataset["cfg_weight"].values.tolist() == [0, 0]
    assert dataset["prompt"].values.tolist() == ["", ""]
