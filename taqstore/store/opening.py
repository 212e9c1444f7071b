"""One group of a store as a lazy Dataset of its completed items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import xarray as xr
from xarray.core import indexing

from taqstore.arrays.dask_blocks import as_dask, preferred_chunks
from taqstore.arrays.lazy import LazyArray
from taqstore.arrays.lazy_text import LazyText
from taqstore.arrays.pieces import Pieces
from taqstore.arrays.store_array import MAPPED_BYTES, StoreArray
from taqstore.items.flags import Items
from taqstore.layout.item_records import Identity
from taqstore.names import VARIABLES, WRITTEN
from taqstore.store import format1
from taqstore.store.attributes import as_held
from taqstore.store.groups import dimension_names, longest_of, read_coordinate

if TYPE_CHECKING:
    import zarr

_WIDEST_LABELS = 256 << 20
LATE = "late"
"""Of `chunks`: what reads whole arrays puts them behind dask, and nobody else does."""

Way: TypeAlias = tuple[str | None, bool, bool]
"""How a group is read: `chunks`, `checksum` and `incomplete` of `open_store`."""


@dataclass(frozen=True)
class Opened:
    """One group as it was found: for zarr, its flags, and in format 2 its items' records.

    Off the local disk, `pieces` are where the bytes of its data come from. `array_of` gives its
    arrays by name where they are not those of `node`, read in a way.
    """

    node: zarr.Group
    mask: np.ndarray
    items: Items | None = None
    pieces: Pieces | None = None
    array_of: Callable[[str, Way], StoreArray] | None = None

    @cached_property
    def item_dims(self) -> tuple[str, ...]:
        """Dimensions of the mask."""
        return dimension_names(self.node[WRITTEN])


@dataclass(frozen=True)
class Identities:
    """Size and fingerprint of a shard of one array, by its place in the grid."""

    items: Items
    name: str

    def __call__(self, coords: tuple[int, ...]) -> Identity | None:
        """Of the shard at a place; None where its item is not flagged."""
        item = self.items.layout.item_of(self.name, coords)
        if any(i >= n for i, n in zip(item, self.items.grid, strict=True)):
            return None  # beyond `written`: a growth that was cut short
        owned = self.items.owned(item)
        return None if owned is None else owned[self.name, coords]

    def ahead(self, places: Iterable[tuple[int, ...]]) -> None:
        """Read the records of the items at some places together."""
        if self.items.fresh:
            self.items.ahead({self.items.layout.item_of(self.name, coords) for coords in places})


def identities_of(view: Opened, name: str) -> Identities | None:
    """What tells the files of an array from any others; None in format 1."""
    return None if view.items is None else Identities(view.items, name)


def dataset_of(view: Opened, name: str, folder: Path | None, digest: str, way: Way) -> xr.Dataset:
    """A lazy Dataset of what is complete in a group.

    Parameters
    ----------
    view
        The group as it was found.
    name, folder
        Its place, for messages, and on a local disk.
    digest
        Of its store.
    way
        How to read it.
    """
    node, mask = view.node, view.mask
    dims = view.item_dims
    sizes = dict(zip(dims, mask.shape, strict=True))
    coordinates = set(str(node.attrs.get("coordinates", "")).split())
    data: dict[str, xr.Variable] = {}
    coords: dict[str, xr.Variable] = {}
    for label, array in sorted(node.arrays(), key=_documented_order):
        names = dimension_names(array)
        if label in coordinates or names == (label,):
            coords[label] = _coordinate(node, array, names, sizes, mask)
        else:
            lazy = lazy_array(view, array, folder, way)
            token = f"{name}/{label}"
            whole = as_dask(lazy, token) if way[0] == "auto" else LazyArray(lazy)
            data[label] = xr.Variable(names, whole, as_held(array.attrs))
            if way[0] == LATE:
                lazy.token = token
                data[label].encoding = {"preferred_chunks": preferred_chunks(lazy, names)}
    attrs = {k: v for k, v in node.attrs.items() if k not in ("coordinates", "taqstore")}
    marker: Any = node.attrs["taqstore"]
    dataset = xr.Dataset(
        data, coords, {**as_held(attrs), "kind": marker["kind"], "store_digest": digest}
    )
    incomplete = way[2]
    return dataset if incomplete else _completed(dataset, dims, mask)


def lazy_array(view: Opened, array: zarr.Array[Any], folder: Path | None, way: Way) -> StoreArray:
    """One data variable of a group, nothing of it read; parameters as of `dataset_of`."""
    name = array.basename
    if view.array_of is not None:
        return view.array_of(name, way)
    item_dims = view.item_dims
    sizes = dict(zip(item_dims, view.mask.shape, strict=True))
    names, (chunks, checksum, _) = dimension_names(array), way
    shape = tuple(min(n, sizes.get(d, n)) for d, n in zip(names, array.shape, strict=True))
    leading = names[: len(item_dims)] == item_dims and _one_item_per_shard(array, len(item_dims))
    return StoreArray(
        array,
        folder=None if folder is None else folder / name,
        shape=shape,
        complete=view.mask if leading and view.items is None else None,
        identity=identities_of(view, name),
        sparse=view.items is None and (name in format1.SPARSE or not leading),
        checksum=checksum,
        mapped_bytes=MAPPED_BYTES if chunks == "auto" else None,
        pieces=view.pieces,
    )


def _coordinate(
    node: zarr.Group,
    array: zarr.Array[Any],
    dims: tuple[str, ...],
    sizes: Mapping[str, int],
    mask: np.ndarray,
) -> xr.Variable:
    label = array.basename
    shape = tuple(min(n, sizes.get(d, n)) for d, n in zip(dims, array.shape, strict=True))
    inside = tuple(slice(0, n) for n in shape)
    if _is_long_text(array, label, dims):
        lazy = LazyText(lambda: read_coordinate(node, label)[inside], shape)
        return xr.Variable(dims, indexing.LazilyIndexedArray(lazy), as_held(array.attrs))
    values = (mask if label == WRITTEN else read_coordinate(node, label))[inside]
    # NumPy's own strings are each as wide as the longest.
    if values.dtype == object and 4 * values.size * longest_of(values) <= _WIDEST_LABELS:
        values = values.astype(str)
    # Written anywhere else they are texts of any length again, as in the store.
    encoding = {"dtype": object} if values.dtype.kind in "UO" else None
    return xr.Variable(dims, values, as_held(array.attrs), encoding)


def _is_long_text(array: zarr.Array[Any], label: str, dims: tuple[str, ...]) -> bool:
    """Whether it is text in several files, of which no index is made."""
    text = array.dtype.kind in "TO"
    return text and dims != (label,) and len(dims) == 1 and array.shape[0] > array.chunks[0]


def _completed(dataset: xr.Dataset, dims: tuple[str, ...], mask: np.ndarray) -> xr.Dataset:
    """Keep what holds at least one completed item along every item dim."""
    chosen: dict[str, Any] = {}
    for axis, dim in enumerate(dims):
        others = tuple(i for i in range(mask.ndim) if i != axis)
        present = np.flatnonzero(mask.any(axis=others))
        if len(present) < mask.shape[axis]:
            contiguous = len(present) and len(present) == present[-1] - present[0] + 1
            chosen[dim] = slice(present[0], present[-1] + 1) if contiguous else present
    kept = dataset.isel(chosen) if chosen else dataset
    return kept.drop_vars(WRITTEN) if bool(np.all(kept[WRITTEN])) else kept


def _documented_order(named: tuple[str, Any]) -> tuple[int, str]:
    """Variables in the order `names` documents them, whatever order a disk lists them in."""
    known = list(VARIABLES)
    return (known.index(named[0]) if named[0] in VARIABLES else len(known)), named[0]


def _one_item_per_shard(array: zarr.Array[Any], items: int) -> bool:
    return all(n == 1 for n in (array.shards or array.chunks)[:items])
