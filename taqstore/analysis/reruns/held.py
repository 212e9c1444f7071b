"""Observations of one site held in memory, small enough to be pooled hundreds of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from taqstore.analysis.ranges.known import KEPT
from taqstore.errors import LayoutError, problem
from taqstore.statistics.histogram import Layout, coarsen

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

MANTISSA_BITS = 2
"""Of the histograms held: what is compared is dealt alike, so that wide bins cost no truth."""
_DIMS = ("batch", "step", "layer")


@dataclass(frozen=True)
class Held:
    """Batches of one site.

    Parameters
    ----------
    layout
        Of the bins.
    used
        Bins that hold anything, ascending.
    counts
        float32 ``(batch, step, layer, used)``.
    ends
        float32 ``(batch, step, layer, 2, value)``: the least minima and the largest maxima of
        channels, which is all that clip ranges of tensors ask of extrema.
    step, layer
        Labels.
    """

    layout: Layout
    used: Ints
    counts: Floats
    ends: Floats
    step: npt.NDArray[Any]
    layer: npt.NDArray[Any]

    @classmethod
    def of(cls, dataset: xr.Dataset) -> Held:
        """Read observations, a batch at a time."""
        histogram = dataset["histogram"].transpose(*_DIMS, "bin")
        attrs = {**dataset.attrs, **histogram.attrs}
        layout = Layout(str(attrs["layout"]), int(attrs["mantissa_bits"]))
        bits = min(MANTISSA_BITS, layout.mantissa_bits)
        coarse, read = replace(layout, mantissa_bits=bits), []
        for batch in range(histogram.sizes["batch"]):
            counts = coarsen(histogram.isel(batch=batch).values, layout, bits)[0]
            used = np.flatnonzero(counts.any(axis=(0, 1)))
            read.append((used, counts[..., used].astype(np.float32)))
        every = np.unique(np.concatenate([used for used, _ in read]))
        return cls(
            coarse,
            every,
            np.stack([_placed(counts, used, every) for used, counts in read]),
            _channel_ends(dataset),
            dataset["step"].values,
            dataset["layer"].values,
        )

    def beside(self, other: Held) -> Held:
        """The batches of both, the other's last.

        Raises
        ------
        LayoutError
            Their bins, steps or layers differ.
        """
        if self.layout != other.layout:
            found = f"{self.layout} and {other.layout}"
            raise LayoutError(problem("the two stores count in bins that do not add", found=found))
        both = np.union1d(self.used, other.used)
        counts = [_placed(side.counts, side.used, both) for side in (self, other)]
        width = min(side.ends.shape[-1] for side in (self, other))
        ends = [side.ends[..., :width] for side in (self, other)]
        return replace(self, used=both, counts=np.concatenate(counts), ends=np.concatenate(ends))

    @staticmethod
    def joined(sites: Sequence[Held]) -> list[Held]:
        """Sites as one, with the layers of all, where they count in the same bins."""
        alike: dict[Layout, list[Held]] = {}
        for site in sites:
            alike.setdefault(site.layout, []).append(site)
        return [_joined(some) for some in alike.values()]

    def dealt(self, picks: Ints, *, pooled: bool) -> xr.Dataset:
        """Observations of hands of batches, with the dimension `deal` in front.

        Parameters
        ----------
        picks
            Positions of batches ``(deal, hand)``.
        pooled
            Add the histograms of a hand up.
        """
        if pooled:
            chosen = np.zeros((len(picks), len(self.counts)), np.float32)
            chosen[np.arange(len(picks))[:, None], picks] = 1
            held = np.tensordot(chosen, self.counts, axes=1)
        else:
            held = self.counts[picks]
        full = np.zeros((*held.shape[:-1], self.layout.bins), np.int64)
        full[..., self.used] = held
        attrs = {"layout": self.layout.dtype, "mantissa_bits": self.layout.mantissa_bits}
        dims = ("deal", *_DIMS)
        inner = tuple(dim for dim in dims if dim != "batch" or not pooled)
        lower, upper = (self.ends[picks][..., side, :] for side in (0, 1))
        return xr.Dataset(
            {
                "histogram": ((*inner, "bin"), full, attrs),
                "min": ((*dims, "channel"), lower),
                "max": ((*dims, "channel"), upper),
            },
            coords={"step": self.step, "layer": self.layer},
        )


def _joined(sites: Sequence[Held]) -> Held:
    both = reduce(np.union1d, [site.used for site in sites])
    width = min(site.ends.shape[-1] for site in sites)
    return replace(
        sites[0],
        used=both,
        counts=np.concatenate([_placed(site.counts, site.used, both) for site in sites], axis=2),
        ends=np.concatenate([site.ends[..., :width] for site in sites], axis=2),
        layer=np.concatenate([site.layer for site in sites]),
    )


def _placed(counts: Floats, used: Ints, every: Ints) -> Floats:
    """Counts of the bins `used` among all of `every`."""
    placed = np.zeros((*counts.shape[:-1], len(every)), np.float32)
    placed[..., np.searchsorted(every, used)] = counts
    return placed


def _channel_ends(dataset: xr.Dataset) -> Floats:
    ends = []
    for name, sign in (("min", 1), ("max", -1)):
        values = sign * dataset[name].transpose(*_DIMS, "channel").values
        kept = min(KEPT, values.shape[-1])
        ends.append(sign * np.partition(values, kept - 1, axis=-1)[..., :kept])
    return np.stack(ends, axis=-2)
