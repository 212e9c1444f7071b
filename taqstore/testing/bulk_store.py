"""Make a store of observations of SD3-Medium's size: statistics drawn directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.layout.template import Template
from taqstore.statistics.histogram import Layout, count
from taqstore.store.writer import create_store
from taqstore.testing.model import RunShape
from taqstore.testing.store import activations_templates

_LAYOUT = Layout("float16", 5)
_ROWS = {"img": 2 * 1024, "txt": 2 * 154}
_LEAST_GELU = -0.16997
_OUTLIERS = 100  # one channel in so many is far wider than the others

Arrays = Mapping[str, NDArray[Any]]


def make_sd3_store(
    path: Path | str,
    *,
    steps: int = 25,
    batches: int = 5,
    blocks: int = 24,
    hidden: int = 1536,
    seed: int = 0,
) -> Path:
    """Write a store whose `activations/<site>` groups observe 189 linear inputs.

    At full size 1536 or 6144 channels per input, 0.95 GB of arrays. Extrema are exact members of
    the histograms beside them, and nothing lies outside.

    Parameters
    ----------
    steps, batches
        How much was observed.
    blocks, hidden
        24 of 1536 channels are SD3-Medium; histograms are as large where there are fewer.
    """
    shape = RunShape(images=batches, steps=steps, blocks=blocks, hidden=hidden, stats_stride=1)
    with create_store(Path(path)) as store:
        for number, template in enumerate(activations_templates(shape, layout=_LAYOUT)):
            writer = store.group(template)
            for batch in range(batches):
                drawn = _drawn(template, (seed, number), batch)
                for array in template.arrays:
                    start = (batch, *(0 for _ in array.dims[1:]))
                    writer.put(array.name, start, drawn[array.name][None])
                writer.commit([(batch,)])
    return Path(path)


def _drawn(template: Template, seed: tuple[int, ...], batch: int) -> Arrays:
    """Arrays (step, layer, ...) of one batch."""
    names = template.coords["layer"][1]
    sigma = np.asarray(template.coords["sigma"][1], np.float64)
    post_gelu = template.path.endswith("mlp.fc2")
    layers = [
        _Layer(str(name), template.sizes["channel"], post_gelu, (*seed, index)).batch(sigma, batch)
        for index, name in enumerate(names)
    ]
    return {key: np.stack([layer[key] for layer in layers], axis=1) for key in layers[0]}


@dataclass(frozen=True)
class _Layer:
    """One linear input: Laplacian values, a few wide channels, a scale that falls with sigma."""

    name: str
    channels: int
    post_gelu: bool
    seed: tuple[int, ...]

    def batch(self, sigma: NDArray[np.float64], batch: int) -> Arrays:
        """Statistics (step, ...) of one batch."""
        rng = np.random.default_rng(self.seed)
        scale = np.exp(rng.normal(-1, 0.5)) * (1 + rng.uniform(0, 1) * sigma)
        width = np.exp(rng.normal(0, 0.3, self.channels))
        outliers = rng.choice(self.channels, max(1, self.channels // _OUTLIERS), replace=False)
        width[outliers] *= 5
        rng = np.random.default_rng((*self.seed, batch))
        rows = _ROWS[self.name.rpartition(".")[2]]
        low, high = self._extrema(rng, scale[:, None] * width * np.log(rows))
        bins = [self._counted(rng, *bounds, rows) for bounds in zip(scale, low, high, strict=True)]
        return {
            "min": low,
            "max": high,
            "mean": np.float32((low.astype(np.float32) + high) / 100),
            "m2": np.float32(2 * rows * (scale[:, None] * width) ** 2),
            "count": np.full(len(sigma), rows),
            "tensor_min": low.min(axis=1),
            "tensor_max": high.max(axis=1),
            "histogram": np.array(bins, np.uint32),
            "nonfinite": np.zeros((len(sigma), 3), np.uint64),
        }

    def _extrema(
        self, rng: np.random.Generator, reach: NDArray[np.float64]
    ) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        low, high = (reach * rng.uniform(0.7, 1.3, reach.shape) for _ in range(2))
        bottom = np.full(reach.shape, _LEAST_GELU) if self.post_gelu else -low
        return bottom.astype(np.float16), high.astype(np.float16)

    def _counted(
        self,
        rng: np.random.Generator,
        scale: float,
        low: NDArray[np.float16],
        high: NDArray[np.float16],
        rows: int,
    ) -> NDArray[np.int64]:
        """The extrema of all channels, and the rest of the values between the outermost of them."""
        ends, _ = count(np.concatenate([low, high]), _LAYOUT)
        edges = np.clip(_LAYOUT.edges(), float(low.min()), float(high.max()))
        share = np.diff(np.sign(edges) * (1 - np.exp(-np.abs(edges) / scale)) / 2)
        rest = self.channels * (rows - 2)
        drawn: NDArray[np.int64] = rng.poisson(share / share.sum() * rest)
        # An end of the range is in its bin from the one side only.
        occupied = np.flatnonzero(ends)
        drawn[: occupied[0]] = drawn[occupied[-1] + 1 :] = 0
        return ends + drawn
