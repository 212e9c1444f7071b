"""The first value that is no number, and how near the largest ones come to what formats hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from taqstore.analysis.shared.headroom import Cells, cells_of
from taqstore.analysis.shared.inputs import Array, finish
from taqstore.analysis.shared.number_limits import LIMITS, accumulator_limit
from taqstore.analysis.table import of_row
from taqstore.analysis.whole_rows import HEADROOMS
from taqstore.asked import word_of
from taqstore.errors import MissingError, problem
from taqstore.kinds.nonfinite import KINDS, at
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import MODEL_LAYERS, SITES, LayerName, parse_layer, site_rank, split_group

_NAME = "overflow"
INT8 = HEADROOMS[-1]
_LAST = list(MODEL_LAYERS)[-1]


@of_row(_NAME)
def overflow(
    groups: Mapping[str, xr.Dataset],
    *,
    to: Sequence[str] = ("float16",),
    min_headroom: float = 1.0,
    accumulator_bits: int = 32,
) -> dict[str, xr.Dataset]:
    """First value that is no number, and the least headroom by layer, step and image.

    Headroom is the largest value that a format holds over the largest ``|x|`` seen (below 1 it
    overflows, infinite where all are 0, 0 where a value is no number), and its log2 in bits. For
    `int8` it is ``(2^(accumulator_bits - 1) - 1) / (127 sum_j q_j)``: q_j is the integer of the
    largest ``|x|`` of channel j at the step size ``alpha / 127``, alpha the largest ``|x|`` of
    that step and layer over all batches, and 127 the largest weight. No weights make a larger sum.

    Parameters
    ----------
    groups
        A store, or any mapping: every group of statistics in it is looked at.
    to
        Formats, out of `HEADROOMS`, whose headroom makes a verdict.
    min_headroom
        Least that these may have.
    accumulator_bits
        Width of the integer that int8 products are summed in.

    Returns
    -------
    ``{"overflow": Dataset}``. Over (format): `least_headroom`, `least_bits` and where: `least_at`.
    (step, format): `step_headroom`, `step_bits`, `step_at`. (images, format): `image_headroom`,
    `image_bits`, `image_at`; absent where a source has no batches. (input): `absmax`,
    `absmax_at`, `nonfinite_count`, `nonfinite_at`, `channel_headroom` (of int8: by the number of
    channels alone), `rms_headroom` (of int8: the RMS bound of Cauchy and Schwarz). (input,
    format): `headroom`, `headroom_bits`. Inputs are in the order the model runs.
    Attributes: `summary` and `failure`, a line each (`failure` is empty where nothing fails), and
    `outside_int8`, the inputs whose int8 sums may leave the accumulator.

    Raises
    ------
    MissingError
        No group has extrema.
    MisuseError
        An option out of its range.
    """
    for word in to:
        word_of(word, HEADROOMS, "to")
    limit = accumulator_limit(accumulator_bits)
    inputs = _inputs(_sites(groups))
    parts = [_least(inputs, limit), _by_step(inputs, limit)]
    if any(images for one in inputs for images in one.cells.images):
        parts.append(_by_image(inputs, limit))
    parts.append(_by_input(inputs, limit))
    # The order of dimensions is that of columns.
    dims = {name: part[name] for part in parts for name in part.dims if name != "format"}
    result = xr.merge([xr.Dataset(coords={**dims, "format": list(HEADROOMS)}), *parts])
    said = _said(result, _first(inputs), to, min_headroom)
    options = {"min_headroom": min_headroom, "accumulator_bits": accumulator_bits}
    source = next(iter(groups.values()), xr.Dataset())
    return {_NAME: finish(result, source, _NAME, to=",".join(to), **options, **said)}


@dataclass(frozen=True)
class _Input:
    """One tensor that linears read: cells of its site at a position of `layer`."""

    cells: Cells
    place: int

    @property
    def name(self) -> LayerName:
        layer = parse_layer(self.cells.layers[self.place])
        return LayerName(layer.block, layer.stream, self.cells.site)

    @property
    def full(self) -> str:
        return f"{self.cells.layers[self.place]}.{self.cells.site}"

    @property
    def order(self) -> tuple[object, ...]:
        """Sort key: embeddings, blocks as they run, the last layer."""
        name, rank = self.name, site_rank(self.cells.site)
        key = name.sort_key
        if not name.in_block:
            return (2 if name.block == _LAST else 0, key, 0, 0, rank)
        later = self.cells.site != SITES[0]
        return (1, key[:2], later, key[2], rank)

    def of(self, name: str) -> Array:
        """Values (batch, step) of a field of its cells."""
        values: Array = getattr(self.cells, name)[:, :, self.place]
        return values

    def where(self, batch: int, step: int, *, full: bool = True) -> str:
        """A cell in words; without the input where that is known."""
        what = at(self.full, self.cells.steps[step], self.cells.images[batch])
        return what if full else what.removeprefix(f"{self.full} at ")

    @cached_property
    def quantities(self) -> dict[str, Array]:
        """What is held against floats and against sums of integers (batch, step)."""
        reached, sums = self.of("reached"), self.of("accumulated")
        broken = np.isinf(reached) & ~np.isnan(sums)
        return {"reached": reached, "accumulated": np.where(broken, np.inf, sums)}


def _sites(groups: Mapping[str, xr.Dataset]) -> list[Cells]:
    found, first = [], None
    for path in groups:
        if split_group(path)[0] not in STATISTICS:
            continue
        try:
            found.append(cells_of(path, groups[path]))
        except MissingError as error:
            first = first or error
    if not found:
        raise first or MissingError(problem(f"{_NAME} needs statistics", found=", ".join(groups)))
    return found


def _inputs(sites: Sequence[Cells]) -> list[_Input]:
    every = (_Input(cells, place) for cells in sites for place in range(len(cells.layers)))
    return sorted(every, key=lambda one: one.order)


def _by_input(inputs: Sequence[_Input], limit: float) -> xr.Dataset:
    largest = {
        name: np.array([_largest(one.quantities[name]) for one in inputs])
        for name in ("reached", "accumulated")
    }
    headroom = _headrooms(largest, limit)
    bad = [one.of("nonfinite").sum(axis=-1) for one in inputs]
    at_least = [_place(one, one.of("absmax")) for one in inputs]
    by_channels = np.array([one.cells.by_channels for one in inputs])
    typical = np.array([_largest(one.of("typical")) for one in inputs])
    return xr.Dataset(
        {
            "absmax": ("input", [_largest(one.of("absmax")) for one in inputs]),
            "absmax_at": ("input", at_least),
            "nonfinite_count": ("input", [int(counts.sum()) for counts in bad]),
            "nonfinite_at": ("input", [_first_at(*pair) for pair in zip(inputs, bad, strict=True)]),
            "channel_headroom": ("input", _headroom(limit, by_channels)),
            "rms_headroom": ("input", _headroom(limit, typical)),
            "headroom": (("input", "format"), headroom),
            "headroom_bits": (("input", "format"), _bits(headroom)),
        },
        {
            "input": [one.full for one in inputs],
            "site": ("input", [one.cells.site for one in inputs]),
            "layer": ("input", [one.cells.layers[one.place] for one in inputs]),
            "format": list(HEADROOMS),
        },
    )


def _first_at(one: _Input, counts: Array) -> str:
    """The first cell of an input that has a value that is no number: by image, then by step."""
    cells = np.argwhere(counts)
    return one.where(*map(int, cells[0]), full=False) if len(cells) else ""


def _place(one: _Input, values: Array) -> str:
    """The first cell with the largest value; nothing where no value is known."""
    if np.isnan(values).all():
        return ""
    batch, step = np.unravel_index(int(np.nanargmax(values)), values.shape)
    return one.where(int(batch), int(step), full=False)


def _largest(values: Array) -> float:
    return float(np.nanmax(values)) if not np.isnan(values).all() else np.nan


def _headroom(most: Array | float, values: Array) -> Array:
    """``most / value``: infinite of 0, 0 of infinity, NaN of what is not known."""
    with np.errstate(divide="ignore"):
        ratio: Array = np.asarray(most) / values
    return ratio


def _bits(headroom: Array) -> Array:
    with np.errstate(divide="ignore"):
        bits: Array = np.log2(headroom)
    return bits


def _headrooms(largest: Mapping[str, Array], limit: float) -> Array:
    """Headroom ``(..., format)`` from the largest values of `_Input.quantities`."""
    floats = [_headroom(most, largest["reached"]) for most in LIMITS.values()]
    return np.stack([*floats, _headroom(limit, largest["accumulated"])], axis=-1)


def _least(inputs: Sequence[_Input], limit: float) -> xr.Dataset:
    every = [(one, slice(None), slice(None)) for one in inputs]
    return _told("least", [every], limit).squeeze("part", drop=True)


def _by_step(inputs: Sequence[_Input], limit: float) -> xr.Dataset:
    steps = sorted({step for one in inputs for step in one.cells.steps})
    parts = [
        [
            (one, slice(None), slice(place, place + 1))
            for one in inputs
            for place in _places(one.cells.steps, step)
        ]
        for step in steps
    ]
    told = _told("step", parts, limit).rename(part="step")
    return told.assign_coords(step=steps)


def _by_image(inputs: Sequence[_Input], limit: float) -> xr.Dataset:
    images = sorted({images for one in inputs for images in one.cells.images})
    parts = [
        [
            (one, slice(place, place + 1), slice(None))
            for one in inputs
            for place in _places(one.cells.images, held)
        ]
        for held in images
    ]
    told = _told("image", parts, limit).rename(part="images")
    return told.assign_coords(images=[", ".join(map(str, held)) for held in images])


def _places(labels: Sequence[object], label: object) -> list[int]:
    return [labels.index(label)] if label in labels else []


_Part = tuple[_Input, slice, slice]


def _peak(part: Sequence[_Part], quantity: str) -> tuple[float, str]:
    """The largest value of some cells of some inputs, the first that has it, and where."""
    most, where = np.nan, ""
    for one, batches, steps in part:
        values = one.quantities[quantity][batches, steps]
        if np.isnan(values).all():
            continue
        place = np.unravel_index(int(np.nanargmax(values)), values.shape)
        if not values[place] <= most:
            most = float(values[place])
            batch, step = int(place[0]), int(place[1])
            where = one.where((batches.start or 0) + batch, (steps.start or 0) + step)
    return most, where


def _told(word: str, parts: Sequence[Sequence[_Part]], limit: float) -> xr.Dataset:
    """Least headroom of every part, over (part, format), and where it is."""
    peaks = {name: [_peak(part, name) for part in parts] for name in ("reached", "accumulated")}
    largest = {name: np.array([most for most, _ in found]) for name, found in peaks.items()}
    headroom = _headrooms(largest, limit)
    names = ["reached"] * len(LIMITS) + ["accumulated"]
    places = [[peaks[name][i][1] for name in names] for i in range(len(parts))]
    over = ("part", "format")
    return xr.Dataset(
        {
            f"{word}_headroom": (over, headroom),
            f"{word}_bits": (over, _bits(headroom)),
            f"{word}_at": (over, places),
        },
        {"format": list(HEADROOMS)},
    )


def _first(inputs: Sequence[_Input]) -> str:
    """The first cell that has what is no number, in the order the model ran; nothing if none."""
    first: tuple[tuple[object, ...], _Input, tuple[int, int]] | None = None
    for number, one in enumerate(inputs):
        for batch, step in np.argwhere(one.of("nonfinite").any(axis=-1)).tolist():
            key = (one.cells.images[batch], one.cells.steps[step], number)
            if first is None or key < first[0]:
                first = key, one, (batch, step)
    if first is None:
        return ""
    _, one, cell = first
    counts = zip(one.of("nonfinite")[cell], KINDS, strict=True)
    told = ", ".join(f"{int(count)} {kind}" for count, kind in counts if count)
    return f"{told} in the input of {one.where(*cell)}"


def _said(result: xr.Dataset, first: str, to: Sequence[str], min_headroom: float) -> dict[str, str]:
    """`summary`, `failure` and `outside_int8`."""
    least = result[["least_headroom", "least_at"]]
    told, short = [], []
    for form in HEADROOMS:
        headroom = float(least["least_headroom"].sel(format=form))
        if np.isnan(headroom):
            continue
        text = f"{form} {headroom:.4g} ({_bits(np.array(headroom)):+.1f} bits)"
        told.append(text)
        if form in to and headroom < min_headroom:
            where = str(least["least_at"].sel(format=form).item())
            short.append(f"headroom to {text} is below {min_headroom:g} in {where}")
    found = f"first non-finite: {first}" if first else "no non-finite values"
    outside = result["input"].values[(result["headroom"].sel(format=INT8) < 1).values]
    return {
        "summary": f"{found}; least headroom: {', '.join(told)}",
        "failure": "; ".join([*([f"first non-finite: {first}"] if first else []), *short]),
        "first_nonfinite": first,
        "outside_int8": ", ".join(map(str, outside)),
    }
