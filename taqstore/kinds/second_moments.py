"""Second moments of linear inputs, sum of x x^T: the template of their groups, and their reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from taqstore.errors import LayoutError, MissingError, StoreError, problem
from taqstore.kinds.templates import Coords, layer_coords
from taqstore.layout.template import Array, Template, nbytes, rows_per_shard
from taqstore.names import ACTIVATIONS, SECOND_MOMENTS, parse_layer, site_rank, split_group
from taqstore.statistics.second_moment import SecondMoment
from taqstore.store.given import handed
from taqstore.store.group_writer import GroupWriter

Groups = Mapping[str, xr.Dataset]
Float64 = NDArray[np.float64]

BLOCK_SIZE = "block_size"
CHANNELS = "channels"

_ITEM = ("batch", "step_group")
_PER_LAYER = (*_ITEM, "layer")
_MATRIX = ("channel_block", "channel_row", "channel_column")


def second_moments_template(
    site: str,
    *,
    layers: Sequence[str],
    channels: int,
    block_size: int | None,
    steps: ArrayLike,
    sigmas: ArrayLike,
    timesteps: NDArray[Any],
    step_group_of: ArrayLike,
    images: ArrayLike,
    attrs: Mapping[str, Any] | None = None,
) -> Template:
    """Template of `second_moments/<site>`: a (batch, step_group) is an item, a layer a chunk.

    Parameters
    ----------
    site, layers, channels, steps, sigmas, timesteps
        As of `activations_template`.
    block_size
        Channels of a block; None: one block of all. More than there are: the same.
    step_group_of
        (step,) group of each step: 0 first, never descending, none left out.
    images
        (batch, slot) image ids, -1 where a batch is smaller.

    Raises
    ------
    LayoutError
        The groups are not such, or a block has no channel.
    """
    group_of, level = np.asarray(step_group_of, np.int64), np.asarray(sigmas, np.float32)
    _check(site, group_of, len(level), block_size)
    size = min(block_size or channels, channels)
    slots = np.asarray(images, np.int64)
    groups = int(group_of[-1]) + 1
    coords: Coords = {
        "batch": (("batch",), slots[:, 0]),
        "image": (("batch", "slot"), slots),
        "step_group": (("step_group",), np.arange(groups)),
        "sigma_lower": (("step_group",), _ends(level, group_of, np.minimum)),
        "sigma_upper": (("step_group",), _ends(level, group_of, np.maximum)),
        "step": (("step",), np.asarray(steps, np.int64)),
        "sigma": (("step",), level),
        "timestep": (("step",), timesteps),
        "step_group_of": (("step",), group_of),
        **layer_coords(layers),
    }
    sizes = {"batch": len(slots), "slot": slots.shape[1], "step_group": groups}
    sizes |= {"step": len(level), "layer": len(layers), "channel": channels}
    sizes |= dict(zip(_MATRIX, matrix_shape(channels, block_size), strict=True))
    of_layer = nbytes(tuple(sizes[dim] for dim in _MATRIX), "float32")
    return Template(
        path=f"{SECOND_MOMENTS}/{site}",
        kind=SECOND_MOMENTS,
        sizes=sizes,
        arrays=(
            Array("second_moment", (*_PER_LAYER, *_MATRIX), "float32", split="layer"),
            Array("channel_sum", (*_PER_LAYER, "channel"), "float64", split="layer"),
            Array("count", _PER_LAYER, "int64"),
            Array("left_out", _PER_LAYER, "int64"),
        ),
        coords=coords,
        item_dims=_ITEM,
        shard={"layer": rows_per_shard(of_layer, len(layers))},
        attrs={**(attrs or {}), CHANNELS: channels, BLOCK_SIZE: size},
    )


def matrix_shape(channels: int, block_size: int | None) -> tuple[int, int, int]:
    """Blocks, rows and columns of the second moment of so many channels; None: one block.

    >>> matrix_shape(100, 16), matrix_shape(100, None), matrix_shape(10, 16)
    ((7, 16, 16), (1, 100, 100), (1, 10, 10))
    """
    size = min(block_size or channels, channels)
    return -(-channels // size), size, size


def equal_step_groups(steps: int, groups: int) -> NDArray[np.int64]:
    """Group (step,) of each of so many steps, the groups as equal as can be.

    >>> equal_step_groups(5, 2).tolist()
    [0, 0, 0, 1, 1]
    """
    parts = np.array_split(np.arange(steps), groups)
    return np.repeat(np.arange(groups), [len(part) for part in parts]).astype(np.int64)


def put_moments(
    writer: GroupWriter, batch: int, group: int, start: int, moments: Sequence[SecondMoment]
) -> int:
    """Write a shard of layers from `start` on; returns bytes written."""
    values = {
        "second_moment": np.stack([moment.blocks(np.float32) for moment in moments]),
        "channel_sum": np.stack([moment.channel_sum for moment in moments]),
        "count": np.array([moment.count for moment in moments]),
        "left_out": np.array([moment.left_out for moment in moments]),
    }
    return sum(
        writer.put(name, (batch, group, start, *(0 for _ in array.shape[1:])), array[None, None])
        for name, array in values.items()
    )


def _check(site: str, group_of: NDArray[np.int64], steps: int, block_size: int | None) -> None:
    ascends = len(group_of) > 0 and group_of[0] == 0 and set(np.diff(group_of)) <= {0, 1}
    if len(group_of) != steps or not ascends:
        what = "groups of steps must be 0, 1, … in the order of the steps, one for each step"
        raise LayoutError(problem(what, where=site, found=str(group_of.tolist()[:8])))
    if block_size is not None and block_size < 1:
        what = "a block of channels has at least one"
        raise LayoutError(problem(what, where=site, found=str(block_size)))


def _ends(
    level: NDArray[np.float32], group_of: NDArray[np.int64], end: np.ufunc
) -> NDArray[np.float32]:
    starts = np.searchsorted(group_of, np.arange(int(group_of[-1]) + 1))
    return np.asarray(end.reduceat(level, starts), np.float32)


@dataclass(frozen=True)
class Moments2:
    """Second moments of one linear input, summed over batches and groups of steps.

    Parameters
    ----------
    blocks
        float64 (channel_block, n, n): sums of x x^T, exactly symmetric; what is beyond the last
        channel is 0.
    count
        Positions, weighted as the sums are.
    channels, block_size
        Channels of the tensor, and of a block (n).
    channel_sum
        float64 (channels,): sums of x.
    left_out
        Positions with a NaN or Inf, which are in none of these.
    """

    blocks: Float64
    count: float
    channels: int
    block_size: int
    channel_sum: Float64
    left_out: int

    @property
    def is_full(self) -> bool:
        """Whether one block holds all channels."""
        return len(self.blocks) == 1

    def diagonal(self) -> Float64:
        """Sums of x^2, float64 (channels,)."""
        diagonals = np.diagonal(self.blocks, axis1=1, axis2=2)
        return np.ascontiguousarray(diagonals).ravel()[: self.channels]

    def full(self) -> Float64:
        """float64 (channels, channels); 0 where channels are of different blocks."""
        whole: Float64 = np.zeros((self.channels, self.channels))
        for index, block in enumerate(self.blocks):
            start = index * self.block_size
            size = min(self.block_size, self.channels - start)
            whole[start : start + size, start : start + size] = block[:size, :size]
        return whole


@handed
def moments_of(
    groups: Groups, layer: str, site: str, *, weights: ArrayLike | None = None
) -> Moments2 | None:
    """Second moments of one tensor, or None where the store has none of it.

    Reads one layer of one item at a time: memory is that of two matrices.

    Parameters
    ----------
    groups
        A store, or any mapping of group paths to Datasets.
    layer, site
        `mm0.img`, `mlp.fc2`; `modulation`, `adaln.linear`.
    weights
        (step_group,) of the sums of each group of steps, 0 or more; None: 1 each.

    Raises
    ------
    MissingError
        The group is there and no item of it is whole.
    LayoutError
        Not one weight for each group of steps.
    StoreError
        The sums are no finite numbers.
    """
    path = f"{SECOND_MOMENTS}/{site}"
    if path not in groups:
        return None
    dataset = groups[path]
    if layer not in dataset["layer"].values:
        return None
    items, factor = whole_items(dataset, path), _weights(dataset, path, weights)
    one = dataset.sel(layer=layer)
    total = np.zeros([dataset.sizes[dim] for dim in _MATRIX])
    sums = np.zeros(dataset.sizes["channel"])
    for batch, group in items:
        item = one.isel(batch=batch, step_group=group)
        if factor[group]:
            total += factor[group] * item["second_moment"].values.astype(np.float64)
            sums += factor[group] * item["channel_sum"].values
    counts = {name: np.asarray(one[name].values) for name in ("count", "left_out")}
    found = Moments2(
        total,
        float(sum(factor[group] * counts["count"][batch, group] for batch, group in items)),
        int(dataset.attrs[CHANNELS]),
        int(dataset.attrs[BLOCK_SIZE]),
        sums,
        int(sum(counts["left_out"][batch, group] for batch, group in items)),
    )
    if not np.isfinite(found.diagonal()).all():
        what = f"second moments of {layer} are beyond float32"
        raise StoreError(problem(what, where=path, remedy="collect them again"))
    return found


def whole_items(dataset: xr.Dataset, path: str = SECOND_MOMENTS) -> list[tuple[int, int]]:
    """Positions (batch, step_group) of the items that hold data.

    Raises
    ------
    MissingError
        There are none.
    """
    sizes = tuple(dataset.sizes[dim] for dim in _ITEM)
    written = dataset["written"].transpose(*_ITEM).values if "written" in dataset else None
    mask = np.ones(sizes, bool) if written is None else np.asarray(written, bool)
    if not mask.any():
        raise MissingError(problem("no second moments are complete yet", where=path))
    return [(int(batch), int(group)) for batch, group in np.argwhere(mask)]


def _weights(dataset: xr.Dataset, path: str, weights: ArrayLike | None) -> Float64:
    groups = dataset.sizes["step_group"]
    found = np.ones(groups) if weights is None else np.asarray(weights, np.float64)
    if found.shape != (groups,) or not (np.isfinite(found).all() and (found >= 0).all()):
        what = f"{groups} groups of steps take as many weights of 0 or more"
        raise LayoutError(problem(what, where=path, found=str(found.tolist())[:80]))
    return found


@handed
def diagonal_of(groups: Groups, layer: str, site: str) -> Float64 | None:
    """Sums of x^2 per channel out of `activations/<site>`, float64 (channels,); None without it.

    ``count * mean^2 + m2`` over all batches and steps that hold data.

    Raises
    ------
    StoreError
        The sums are no finite numbers.
    """
    path = f"{ACTIVATIONS}/{site}"
    if path not in groups or layer not in groups[path]["layer"].values:
        return None
    dataset = groups[path].sel(layer=layer)
    mean = dataset["mean"].values.astype(np.float64)
    squares = dataset["count"].values[..., None] * mean**2 + dataset["m2"].values
    if "written" in dataset:
        squares = squares[np.asarray(dataset["written"].values, bool)]
    total: Float64 = squares.sum(axis=(0, 1), dtype=np.float64)
    if not np.isfinite(total).all():
        what = f"moments of {layer} are no finite numbers"
        raise StoreError(problem(what, where=path, remedy="see taqstore info"))
    return total


def notes(groups: Groups, paths: Iterable[str] | None = None) -> list[str]:
    """A line for every group of second moments that leaves positions with NaN or Inf out."""
    found = []
    for path in groups if paths is None else paths:
        if split_group(path)[0] != SECOND_MOMENTS or path not in groups:
            continue
        left = groups[path]["left_out"]
        by_layer = left.sum([dim for dim in left.dims if dim != "layer"])
        layers = np.atleast_1d(left["layer"].values)
        where = [str(name) for name in layers[np.atleast_1d(by_layer.values) > 0]]
        if where:
            total = int(by_layer.sum())
            found.append(
                f"{path}: {total} positions with non-finite values are left out, "
                f"first in {where[0]}; {len(where)} layers"
            )
    return found


def tensors(groups: Groups) -> list[tuple[str, str]]:
    """(layer, site) of every tensor that has second moments, by site, then in store order."""
    sites = [split_group(p)[1] for p in groups if split_group(p)[0] == SECOND_MOMENTS]
    return [
        (str(layer), site)
        for site in sorted(sites, key=site_rank)
        for layer in sorted(
            map(str, groups[f"{SECOND_MOMENTS}/{site}"]["layer"].values),
            key=lambda name: parse_layer(name).sort_key,
        )
    ]
