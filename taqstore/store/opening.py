"""One group of a store as a lazy Dataset of its completed items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from taqstore.arrays.pieces import Pieces
from taqstore.arrays.plain import LongText, PlainArray, PlainGroup
from taqstore.arrays.store_array import MAPPED_BYTES, ArrayReader
from taqstore.arrays.sums.summed_files import missing_sums
from taqstore.items.flags import Items
from taqstore.layout.item_records import Identity
from taqstore.layout.nodes import ArrayNode, GroupNode
from taqstore.names import VARIABLES, WRITTEN
from taqstore.store import format1
from taqstore.store.attributes import as_held
from taqstore.store.groups import dimension_names, longest_of, read_coordinate

if TYPE_CHECKING:
    import xarray as xr

_WIDEST_LABELS = 256 << 20
HISTOGRAM = "histogram"
LATE = "late"
"""Of `chunks`: what reads whole arrays puts them behind dask, and nobody else does."""

Way: TypeAlias = tuple[str | None, bool, bool]
"""How a group is read: `chunks`, `checksum` and `incomplete` of `open_store`."""


@dataclass(frozen=True)
class Opened:
    """One group as it was found: its node, its flags, and in format 2 its items' records.

    The node is a `GroupNode`, or of several stores together a group of zarr.

    Off the local disk, `pieces` are where the bytes of its data come from. `array_of` gives its
    arrays by name where they are not those of `node`, read in a way.
    """

    node: Any
    mask: np.ndarray
    items: Items | None = None
    pieces: Pieces | None = None
    array_of: Callable[[str, Way], ArrayReader] | None = None

    @property
    def zarr(self) -> Any:
        """The group as zarr sees it."""
        return self.node.zarr if isinstance(self.node, GroupNode) else self.node

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
    import xarray as xr

    data: dict[str, xr.Variable] = {}
    coords: dict[str, xr.Variable] = {}
    for label, array, dims, attrs in _variables(view):
        if _is_coordinate(view, label, dims):
            coords[label] = _labels(_coordinate(view, array, dims), dims, attrs)
        else:
            lazy = lazy_array(view, array, folder, way)
            data[label] = _data(lazy, f"{name}/{label}", dims, attrs, way)
    dataset = xr.Dataset(data, coords, {**_attributes(view), "store_digest": digest})
    kept = dataset if way[2] else dataset.isel(_completed(view))
    return kept.drop_vars(WRITTEN) if _all_whole(kept, way) else kept


def plain_of(view: Opened, folder: Path | None, digest: str, way: Way) -> PlainGroup:
    """The same group without xarray; its data is read when it is used."""
    data: dict[str, PlainArray] = {}
    coords: dict[str, PlainArray] = {}
    for label, array, dims, attrs in _variables(view):
        if _is_coordinate(view, label, dims):
            coords[label] = PlainArray.of(dims, _coordinate(view, array, dims), attrs)
        else:
            source = lazy_array(view, array, folder, way, kind=ArrayReader)
            data[label] = PlainArray.of(dims, source, attrs)
    group = PlainGroup(data, coords, {**_attributes(view), "store_digest": digest})
    kept = group if way[2] else group.isel(**_completed(view))
    return kept.drop_vars(WRITTEN) if _all_whole(kept, way) else kept


def _variables(view: Opened) -> Iterator[tuple[str, Any, tuple[str, ...], dict[str, Any]]]:
    """Arrays of a group with their dimensions and attributes, in the order of documents."""
    for label, array in sorted(view.node.arrays(), key=_documented_order):
        yield label, array, dimension_names(array), as_held(array.attrs)


def _is_coordinate(view: Opened, label: str, dims: tuple[str, ...]) -> bool:
    return dims == (label,) or label in str(view.node.attrs.get("coordinates", "")).split()


def _attributes(view: Opened) -> dict[str, Any]:
    attrs = view.node.attrs
    held = as_held({k: v for k, v in attrs.items() if k not in ("coordinates", "taqstore")})
    return {**held, "kind": attrs["taqstore"]["kind"]}


def _data(
    lazy: Any, token: str, dims: tuple[str, ...], attrs: dict[str, Any], way: Way
) -> xr.Variable:
    import xarray as xr

    from taqstore.arrays.dask_blocks import as_dask, preferred_chunks
    from taqstore.arrays.lazy import LazyArray

    data = as_dask(lazy, token) if way[0] == "auto" else LazyArray(lazy)
    found = xr.Variable(dims, data, attrs, fastpath=True)
    if way[0] == LATE:
        lazy.token = token
        found.encoding = {"preferred_chunks": preferred_chunks(lazy, dims)}
    return found


def _labels(
    found: np.ndarray | LongText, dims: tuple[str, ...], attrs: dict[str, Any]
) -> xr.Variable:
    import xarray as xr

    if isinstance(found, LongText):
        from xarray.core.indexing import LazilyIndexedArray

        from taqstore.arrays.lazy_text import LazyText

        lazy: Any = LazilyIndexedArray(LazyText(found.decode, found.shape))
        return xr.Variable(dims, lazy, attrs)
    # Written anywhere else they are texts of any length again, as in the store.
    encoding = {"dtype": object} if found.dtype.kind in "UO" else None
    # xarray imports dask.array to see whether an array is one; these are as they are to be.
    return xr.Variable(dims, found, attrs, encoding, fastpath=found.dtype.kind in "biufU")


def lazy_array(
    view: Opened,
    array: Any,
    folder: Path | None,
    way: Way,
    *,
    kind: type[ArrayReader] | None = None,
) -> ArrayReader:
    """One data variable of a group, nothing of it read; parameters as of `dataset_of`.

    `kind` is what reads it; by default one that xarray takes.
    """
    if kind is None:
        from taqstore.arrays.lazy import StoreArray

        kind = StoreArray
    name = array.basename
    if view.array_of is not None:
        return view.array_of(name, way)
    item_dims = view.item_dims
    sizes = dict(zip(item_dims, view.mask.shape, strict=True))
    names, (chunks, checksum, _) = dimension_names(array), way
    shape = tuple(min(n, sizes.get(d, n)) for d, n in zip(names, array.shape, strict=True))
    leading = names[: len(item_dims)] == item_dims and _one_item_per_shard(array, len(item_dims))
    return kind(
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


def sums_of(view: Opened, folder: Path) -> dict[str, bytes]:
    """Files of counts added up over items that are missing in a group, by key below it.

    Parameters
    ----------
    folder
        Of the group, on a local disk.
    """
    found: dict[str, bytes] = {}
    if view.item_dims != ("batch",) or HISTOGRAM not in view.node:
        return found
    array = view.node[HISTOGRAM]
    if dimension_names(array)[:1] == view.item_dims:
        reader = lazy_array(view, array, folder, (None, True, False), kind=ArrayReader)
        found.update(missing_sums(reader))
    return found


def _coordinate(view: Opened, array: Any, dims: tuple[str, ...]) -> np.ndarray | LongText:
    label, sizes = array.basename, dict(zip(view.item_dims, view.mask.shape, strict=True))
    shape = tuple(min(n, sizes.get(d, n)) for d, n in zip(dims, array.shape, strict=True))
    inside = tuple(slice(0, n) for n in shape)
    if _is_long_text(array, label, dims):
        return LongText(lambda: read_coordinate(view.node, label)[inside], shape)
    values = (view.mask if label == WRITTEN else read_coordinate(view.node, label))[inside]
    # NumPy's own strings are each as wide as the longest.
    if values.dtype == object and 4 * values.size * longest_of(values) <= _WIDEST_LABELS:
        values = values.astype(str)
    return values


def _is_long_text(array: Any, label: str, dims: tuple[str, ...]) -> bool:
    """Whether it is text in several files, of which no index is made."""
    text = array.is_text if isinstance(array, ArrayNode) else array.dtype.kind in "TO"
    return text and dims != (label,) and len(dims) == 1 and array.shape[0] > array.chunks[0]


def _completed(view: Opened) -> dict[str, Any]:
    """Where along the item dims there is at least one completed item, dims of all left out."""
    chosen: dict[str, Any] = {}
    for axis, dim in enumerate(view.item_dims):
        others = tuple(i for i in range(view.mask.ndim) if i != axis)
        present = np.flatnonzero(view.mask.any(axis=others))
        if len(present) < view.mask.shape[axis]:
            contiguous = len(present) and len(present) == present[-1] - present[0] + 1
            chosen[dim] = slice(present[0], present[-1] + 1) if contiguous else present
    return chosen


def _all_whole(kept: Any, way: Way) -> bool:
    """Whether a group says of nothing that it is not complete."""
    return not way[2] and bool(np.all(kept[WRITTEN].values))


def _documented_order(named: tuple[str, Any]) -> tuple[int, str]:
    """Variables in the order `names` documents them, whatever order a disk lists them in."""
    known = list(VARIABLES)
    return (known.index(named[0]) if named[0] in VARIABLES else len(known)), named[0]


def _one_item_per_shard(array: Any, items: int) -> bool:
    return all(n == 1 for n in (array.shards or array.chunks)[:items])
