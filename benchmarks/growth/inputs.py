"""What grows: stores and sources of any number of images, steps and blocks, made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taqstore.testing import RunShape, make_activations, make_latents, make_sd3_store

AXES: dict[str, tuple[int, ...]] = {
    "images": (1, 10, 30, 100, 300, 1000),
    "steps": (5, 12, 25, 50, 100),
    "blocks": (6, 12, 24, 38, 57),
}
"""Sizes along each axis, by what grows."""


@dataclass(frozen=True)
class Size:
    """How many of each there are.

    Parameters
    ----------
    axis
        Which of the three grows; the others are as they are for this axis.
    """

    axis: str
    images: int
    steps: int
    blocks: int

    @property
    def count(self) -> int:
        """How many there are of what grows."""
        found: int = getattr(self, self.axis)
        return found

    def __str__(self) -> str:
        return f"{self.images}x{self.steps}x{self.blocks}"


# Few of what does not grow, so that 1,000 images are a store of a gigabyte and not of a hundred.
_OBSERVED = {
    "images": {"steps": 5, "blocks": 2},
    "steps": {"images": 4, "blocks": 6},
    "blocks": {"images": 4, "steps": 10},
}
_SOURCES = {
    "images": {"steps": 10, "blocks": 1},
    "steps": {"images": 2, "blocks": 6},
    "blocks": {"images": 2, "steps": 20},
}
_RUNS = {
    "images": {"steps": 2, "blocks": 4},
    "steps": {"images": 1, "blocks": 4},
    "blocks": {"images": 1, "steps": 4},
}
OTHERS: dict[str, Mapping[str, dict[str, int]]] = {
    "observed": _OBSERVED, "sources": _SOURCES, "runs": _RUNS
}  # fmt: skip
"""What stays as it is while one axis grows, by the kind of input."""


def sizes(kind: str, axis: str, counts: tuple[int, ...]) -> list[Size]:
    """Sizes of one kind of input along one axis."""
    return [Size(axis, **{**OTHERS[kind][axis], axis: count}) for count in counts]


def observed(folder: Path, size: Size) -> Path:
    """A store of observations of narrow inputs: histograms of full size, few channels."""

    def make(path: Path) -> None:
        make_sd3_store(path, steps=size.steps, batches=size.images, blocks=size.blocks, hidden=64)

    return _once(folder / f"observed-{size}.zarr", make)


def source(folder: Path, size: Size) -> Path:
    """What scripts left: latents where images grow, else pooled statistics."""
    if size.axis == "images":
        shape = RunShape(images=size.images, steps=size.steps, latent=(32, 32))
        return _once(folder / f"latents-{size}", lambda path: make_latents(path, shape=shape))
    shape = RunShape(
        images=2, steps=size.steps, blocks=size.blocks, hidden=128, image_tokens=20, stats_stride=1
    )
    return _once(folder / f"statistics-{size}", lambda path: make_activations(path, shape=shape))


def run_of_model(folder: Path, size: Size) -> Path:
    """Latents of a model of so many blocks with random weights, ready to be collected from."""
    from .models import generated

    return _once(folder / f"run-{size}.zarr", lambda path: generated(path, size))


MAKERS: dict[str, Callable[[Path, Size], Path]] = {
    "observed": observed, "sources": source, "runs": run_of_model
}  # fmt: skip


def data_of(path: Path, size: Size) -> int:
    """Bytes of arrays that were observed, or of files of scripts; of runs, forwards of blocks."""
    if path.name.startswith("observed"):
        from taqstore import open_store

        store = open_store(path)
        return sum(int(store[group].nbytes) for group in store)
    if path.name.startswith("run"):
        return size.images * size.steps * size.blocks
    return sum(file.stat().st_size for file in path.rglob("*.npz"))


def _once(path: Path, make: Callable[[Path], Any]) -> Path:
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{path.name}")
        make(unfinished)
        unfinished.rename(path)
    return path
