"""Numbers that are none: NaN and infinite values that groups of statistics counted or hold.

Observations count them as `nonfinite`, apart from everything else they keep. Pooled sources do not
count them: there the extrema that are no numbers are told, at steps and layers that were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import (
    ACTIVATIONS,
    CHANNEL_HISTOGRAMS,
    EXTREMA,
    parse_layer,
    site_of,
    site_rank,
    split_group,
)

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]
Counts = np.ndarray[Any, Any]

KINDS = ("NaN", "+Inf", "-Inf")
"""What `nonfinite` counts, in its order."""

CELL = ("batch", "step", "layer")
"""Dims that tell where a value was seen."""
_ROLLUPS = ("tensor_min", "tensor_max", "tensor_absmax", "alpha")
_SEEN = ("n_batches", "count")
_SHOWN = 10
_TESTS: tuple[Callable[[Counts], Counts], ...] = (np.isnan, np.isposinf, np.isneginf)


@dataclass(frozen=True)
class First:
    """Where they were met first: the step nearest to noise, the first layer there, its batch.

    `images` are those of the batch; pooled sources do not tell images apart.
    """

    layer: str
    step: int
    images: tuple[int, ...]


@dataclass(frozen=True)
class NonFinite:
    """Values of one group that are no numbers.

    Parameters
    ----------
    group
        Its path.
    of
        `values`, as observations count them, or `extrema`, as a pooled source holds them.
    nan, plus_inf, minus_inf
        How many.
    first
        Where they begin.
    layers, steps, images
        All of those that have any.
    """

    group: str
    of: str
    nan: int
    plus_inf: int
    minus_inf: int
    first: First
    layers: tuple[str, ...]
    steps: tuple[int, ...]
    images: tuple[int, ...]

    @property
    def counts(self) -> str:
        """How many of each kind: `2 NaN, 1 +Inf`."""
        numbers = zip((self.nan, self.plus_inf, self.minus_inf), KINDS, strict=True)
        return ", ".join(f"{number} {kind}" for number, kind in numbers if number)

    @property
    def place(self) -> str:
        """Where they begin: `mm0.img at step 3, image 1`."""
        return at(self.first.layer, self.first.step, self.first.images)

    @property
    def sentence(self) -> str:
        """One line: how many, the first of them, and where they are."""
        total = self.nan + self.plus_inf + self.minus_inf
        named = {"layers": self.layers, "steps": self.steps, "images": self.images}
        where = "; ".join(f"{key} {listed(values)}" for key, values in named.items() if values)
        what = f"{total} non-finite {self.of} ({self.counts})"
        return f"{self.group}: {what}, first in {self.place}; {where}"

    @property
    def document(self) -> dict[str, Any]:
        """All of it for JSON, the sentence as its `note`."""
        return {**asdict(self), "note": self.sentence}

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key: from noise, then in the order of layers and of sites in a block."""
        key = parse_layer(self.first.layer).sort_key
        return self.first.step, key, site_rank(site_of(self.group)), self.group


def at(layer: str, step: int, images: Sequence[int] = ()) -> str:
    """A place in words."""
    where = f"{layer} at step {step}"
    if not images:
        return where
    return f"{where}, image{'s' * (len(images) > 1)} {listed(images)}"


def listed(values: Sequence[Any]) -> str:
    """Some values in words, the rest counted."""
    shown = ", ".join(map(str, values[:_SHOWN]))
    more = len(values) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def nonfinite(
    groups: Groups, paths: Iterable[str] | None = None, *, rollups: bool = False
) -> list[NonFinite]:
    """What the groups hold that is no number; the first of all in front.

    Reads what is small: the counts of observations, the extrema of pooled sources.

    Parameters
    ----------
    groups
        A store, or any mapping of group paths to Datasets, sliced or not.
    paths
        Which to look at; None: all. Groups that are no statistics are passed over, and channel
        histograms told of by the observations beside them.
    rollups
        Of pooled sources look at extrema of whole tensors where these are stored: some kilobytes in
        place of megabytes.
    """
    wanted = dict.fromkeys(counted(path) for path in (groups if paths is None else paths))
    found = (
        _in_group(path, groups[path], rollups)
        for path in wanted
        if split_group(path)[0] in STATISTICS and path in groups
    )
    return sorted((one for one in found if one), key=lambda one: one.order)


def notes(groups: Groups, paths: Iterable[str] | None = None) -> list[str]:
    """A line for every group that holds what is no number; see `nonfinite`."""
    return [one.sentence for one in nonfinite(groups, paths)]


def counted(path: str) -> str:
    """The group that counted the values of this one: channel histograms lie beside observations."""
    root, site = split_group(path)
    return f"{ACTIVATIONS}/{site}" if root == CHANNEL_HISTOGRAMS else path


def _in_group(path: str, dataset: xr.Dataset, rollups: bool) -> NonFinite | None:
    if not {"step", "layer"} <= set(dataset.variables):
        return None
    observed = "nonfinite" in dataset.data_vars
    counts = observed_counts(dataset) if observed else pooled_counts(dataset, rollups=rollups)
    cells = np.argwhere(counts.any(axis=-1))
    if not len(cells):
        return None
    steps, layers = _labels(dataset, "step"), _labels(dataset, "layer")
    rank = {str(layer): parse_layer(str(layer)).sort_key for layer in layers}
    batch, step, layer = min(
        cells.tolist(), key=lambda cell: (steps[cell[1]], rank[str(layers[cell[2]])], cell[0])
    )
    images = images_of(dataset)
    nan, plus_inf, minus_inf = (int(total) for total in counts.sum(axis=(0, 1, 2)))
    return NonFinite(
        path,
        "values" if observed else "extrema",
        nan,
        plus_inf,
        minus_inf,
        First(str(layers[layer]), int(steps[step]), images[batch]),
        tuple(sorted({str(layers[i]) for i in cells[:, 2]}, key=lambda name: rank[name])),
        tuple(sorted({int(steps[i]) for i in cells[:, 1]})),
        tuple(sorted({image for i in set(cells[:, 0].tolist()) for image in images[i]})),
    )


def observed_counts(dataset: xr.Dataset) -> Counts:
    """`nonfinite` of observations, (batch, step, layer, kind), whatever of these was sliced off."""
    return laid_out(dataset["nonfinite"], (*CELL, "nonfinite_kind"))


def laid_out(array: xr.DataArray, dims: Sequence[str] = CELL) -> Counts:
    """Values with exactly these dims in front; those it lacks have the length 1."""
    rest = [dim for dim in array.dims if dim not in dims]
    order = [array.dims.index(dim) for dim in (*dims, *rest) if dim in array.dims]
    values: Counts = array.values.transpose(order)
    missing = tuple(axis for axis, dim in enumerate(dims) if dim not in array.dims)
    return np.expand_dims(values, missing)


def pooled_counts(dataset: xr.Dataset, *, rollups: bool = False) -> Counts:
    """Extrema of a pooled source that are no numbers where it saw something.

    Returns
    -------
    int64 (batch, step, layer, kind); one batch where there are none.
    """
    tensors = tuple(name for name in _ROLLUPS if name in dataset.data_vars)
    ends = next((pair for pair in EXTREMA if set(pair) <= set(dataset.data_vars)), ())
    # A source that says how often it saw a layer has NaN where it never did.
    told = next((dataset[name] for name in _SEEN if name in dataset.data_vars), None)
    seen = True if told is None else laid_out(told) > 0
    sizes = (dataset.sizes.get(dim, 1) for dim in CELL)
    total = np.zeros((*sizes, len(KINDS)), np.int64)
    for name in tensors if tensors and (rollups or not ends) else ends:
        values = laid_out(dataset[name])
        rest = tuple(range(len(CELL), values.ndim))
        # One look at all of them; most often there is nothing to tell apart.
        cells = seen & ~np.isfinite(values).all(axis=rest)
        for kind, test in enumerate(_TESTS if cells.any() else ()):
            total[cells, kind] += test(values[cells]).sum(axis=tuple(range(1, len(rest) + 1)))
    return total


def _labels(dataset: xr.Dataset, dim: str) -> Counts:
    if dim in dataset.variables:
        return np.atleast_1d(dataset[dim].values)
    return np.arange(dataset.sizes.get(dim, 1))


def images_of(dataset: xr.Dataset) -> list[tuple[int, ...]]:
    """Images of every batch; its own label where these are not known. None where all are pooled."""
    if "batch" not in dataset.variables:
        return [()]
    if "image" not in dataset.variables:
        return [(int(label),) for label in _labels(dataset, "batch")]
    slots = laid_out(dataset["image"], ("batch", "slot"))
    return [tuple(int(image) for image in row if image >= 0) for row in slots]
