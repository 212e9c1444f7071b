"""Bytes that an item takes, told by its template before there are any."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from taqstore.layout.item_records import Item, ItemLayout
from taqstore.layout.shards import CRC_BYTES
from taqstore.layout.template import Array, Template, nbytes


def item_bytes(
    template: Template, number: Item, shares: Mapping[str, float] | None = None
) -> dict[str, int]:
    """Bytes of the data files of one item, by array.

    Exact where arrays are not compressed; a zstd frame is estimated.

    Parameters
    ----------
    number
        Which item.
    shares
        Compressed by raw bytes, of arrays that are compressed; 1 where it is not known.
    """
    found = dict.fromkeys((array.name for array in template.arrays), 0)
    for name, coords in ItemLayout.of_template(template).shards(number):
        share = (shares or {}).get(name, 1.0)
        found[name] += shard_bytes(template, template.array(name), coords, share)
    return found


def shard_bytes(
    template: Template, array: Array, coords: tuple[int, ...], share: float = 1.0
) -> int:
    """Bytes of one shard file: inner chunks, each with its checksum, and the index behind them.

    Parameters
    ----------
    coords
        Place in the grid of shards.
    share
        Compressed by raw bytes.
    """
    raw = nbytes(template.chunk_shape(array), array.dtype)
    if array.compress:
        raw = round(raw * share)
    if array.split is None:
        return raw + CRC_BYTES
    axis = array.dims.index(array.split)
    capacity, size = template.shard_shape(array)[axis], template.sizes[array.split]
    present = min(capacity, size - coords[axis] * capacity)
    return present * (raw + CRC_BYTES) + 16 * capacity + CRC_BYTES


def raw_bytes(template: Template, number: Item) -> dict[str, int]:
    """Bytes of an item's values before they are compressed, by array."""
    found = dict.fromkeys((array.name for array in template.arrays), 0)
    for name, _ in ItemLayout.of_template(template).shards(number):
        array = template.array(name)
        found[name] += nbytes(template.shard_shape(array), array.dtype)
    return found


def numbers_of(template: Template, places: np.ndarray) -> set[Item]:
    """Numbers of the items that a mask over positions touches: they are written as a whole."""
    extents = [template.item_extent(dim) for dim in template.item_dims]
    at = np.argwhere(places)
    return set(map(tuple, (at // np.array(extents)).tolist())) if at.size else set()


def positions(template: Template) -> int:
    """How many positions the mask of a group has."""
    return prod(template.sizes[dim] for dim in template.item_dims)
