"""Reading: a store as a mapping of group paths to lazy xarray Datasets."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, StoreError, problem
from taqstore.names import ACTIVATIONS, VARIABLES, WRITTEN, parse_layer, site_of, split_group
from taqstore.store.arrays import StoreArray
from taqstore.store.dask_blocks import as_dask
from taqstore.store.groups import dimension_names, read_coordinate, read_mask
from taqstore.store.lazy import LazyArray
from taqstore.store.location import Location, check_format
from taqstore.store.provenance import read_records

if TYPE_CHECKING:
    import zarr

# A pass over a whole array reads every shard once: pages of maps that stay would fill the memory.
_MAPPED_BYTES = 16 << 20
_DATA_KINDS = (
    "latents",
    "samples",
    "activations",
    "pooled",
    "blocks",
    "weights",
    "reconstruction",
)


def open_store(
    address: Store | str | os.PathLike[str],
    *,
    chunks: Literal["auto"] | None = "auto",
    checksum: bool | None = None,
    incomplete: bool = False,
) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    address
        A path or URL (`file://`, `memory://`, any scheme fsspec knows). A store that is open
        already is not opened again, but read in the way asked for here.
    chunks
        ``"auto"``: dask-backed Datasets in blocks of about 32 MB. ``None``: no dask; selections
        are read on use, as views of memory-mapped files where the store is local.
    checksum
        Compare each chunk's crc32c when it is first read. Default: yes with dask, no for mapped
        views (`verify` checks everything at once).
    incomplete
        Also show items whose flag is not set; they read as NaN or zero.

    Raises
    ------
    StoreError
        There is no store there, or it is of a newer format.
    """
    check = chunks is not None if checksum is None else checksum
    if isinstance(address, Store):
        return address.reading(chunks=chunks, checksum=check, incomplete=incomplete)
    return Store(Location.parse(address), chunks=chunks, checksum=check, incomplete=incomplete)


class Store(Mapping[str, xr.Dataset]):
    """A store open for reading. Groups are opened when asked for and kept."""

    def __init__(
        self, location: Location, *, chunks: str | None, checksum: bool, incomplete: bool
    ) -> None:
        self.location, self._chunks = location, chunks
        self._checksum, self._incomplete = checksum, incomplete
        self.root = _open_root(location)
        self._opened: dict[str, xr.Dataset] = {}
        self._labels: dict[str, frozenset[str]] = {}
        self._views = {(chunks, checksum, incomplete): self}

    def __repr__(self) -> str:
        return f"<taqstore.Store {self.location} with {', '.join(self) or 'no groups'}>"

    @cached_property
    def nodes(self) -> dict[str, zarr.Group]:
        """Every finished data group by path."""
        return dict(sorted(walk(self.root)))

    def __iter__(self) -> Iterator[str]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def reading(self, *, chunks: str | None, checksum: bool, incomplete: bool) -> Store:
        """The same open store, its groups read in another way; options as of `open_store`."""
        way = chunks, checksum, incomplete
        if way not in self._views:
            view = copy(self)
            view._chunks, view._checksum, view._incomplete = way
            view._opened, view._labels = {}, {}
            self._views[way] = view
        return self._views[way]

    def refresh(self, *paths: str) -> None:
        """Look at groups again: items flagged since they were opened are seen, and groups made.

        This holds for the store however it is read. Datasets that were handed out stay as they are.
        """
        import zarr

        # Consolidated metadata was read when the store was opened and knows of nothing since.
        root = zarr.open_group(self.root.store, mode="r", use_consolidated=False)
        nodes = dict(self.nodes)
        for path in paths:
            nodes.pop(path, None)
            node: Any = root.get(path)
            if node is not None and _is_finished(node):
                nodes[path] = node
        for view in self._views.values():
            view.root, view.nodes = root, dict(sorted(nodes.items()))
            view.__dict__.pop("digest", None)
            for path in paths:
                view._opened.pop(path, None)
                view._labels.pop(path, None)

    def __getitem__(self, path: str) -> xr.Dataset:
        """A group as a lazy Dataset of its completed items.

        Raises
        ------
        MissingError
            No such group; the message lists those there are.
        """
        path = path.strip("/")
        if path not in self._opened:
            node = self.nodes.get(path)
            if node is None:
                raise MissingError(
                    problem(
                        f"no group {path!r}",
                        where=str(self.location),
                        found=", ".join(self) or "an empty store",
                    )
                )
            self._opened[path] = self._open(path, node)
        return self._opened[path]

    def layer(self, name: str, *, source: str | None = None) -> xr.Dataset:
        """Statistics of one linear input, by any known spelling of its name.

        Parameters
        ----------
        name
            `mm0.img.mlp.fc2`, `mm_00_img`, `mm0_img_attn_k_proj`, …
        source
            `activations` or a pooled source (`timestep_stats` or `pooled/timestep_stats`, …), where
            several hold the layer.

        Raises
        ------
        MissingError
            Unknown name, or no statistics of it, or several and no `source`.
        """
        layer = parse_layer(name)
        sited = [path for path in self if site_of(path) == layer.site]
        having = [path for path in sited if layer.layer in self._layers(path)]
        found = {site_of(split_group(path)[0]): path for path in having}
        if source is not None:
            source = site_of(source)
        elif len(found) > 1 and ACTIVATIONS in found:
            source = ACTIVATIONS
        if (source is None and len(found) != 1) or (source is not None and source not in found):
            what = (
                f"layer {layer.full} is in {len(found)} groups"
                if found
                else f"no statistics of {layer.full}"
            )
            raise MissingError(
                problem(
                    what,
                    where=str(self.location),
                    found=", ".join(found.values()),
                    remedy=f"choose source={' or '.join(found)}" if found else "see taqstore info",
                )
            )
        dataset = self[found[source or next(iter(found))]].sel(layer=layer.layer)
        if layer.projection and "projection" in dataset.dims:
            dataset = dataset.sel(projection=layer.projection)
        return dataset

    def _layers(self, path: str) -> frozenset[str]:
        """Layer labels of a group; read once."""
        if path not in self._labels:
            labels = read_coordinate(self.nodes[path], "layer")
            self._labels[path] = frozenset(map(str, labels))
        return self._labels[path]

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Finished provenance records, oldest first."""
        return read_records(self.root)

    @cached_property
    def digest(self) -> str:
        """Identity of the store's content: changes with every recorded write."""
        content = {"store": self.root.attrs["taqstore"], "records": self.provenance}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _open(self, path: str, node: zarr.Group) -> xr.Dataset:
        folder = self.location.folder
        group_folder = None if folder is None else folder / path
        mask = read_mask(node, group_folder)
        dims = dimension_names(node[WRITTEN])
        sizes = dict(zip(dims, mask.shape, strict=True))
        coordinates = set(str(node.attrs.get("coordinates", "")).split())
        data: dict[str, xr.Variable] = {}
        coords: dict[str, xr.Variable] = {}
        for name, array in sorted(node.arrays(), key=_documented_order):
            names = dimension_names(array)
            if name in coordinates or names == (name,):
                values = mask if name == WRITTEN else read_coordinate(node, name)
                coords[name] = _coordinate(array, names, sizes, values)
            else:
                data[name] = self._variable(array, names, sizes, group_folder, dims, mask)
        attrs = {k: v for k, v in node.attrs.items() if k not in ("coordinates", "taqstore")}
        marker: Any = node.attrs["taqstore"]
        attrs = {**attrs, "kind": marker["kind"], "store_digest": self.digest}
        dataset = xr.Dataset(data, coords, attrs)
        return dataset if self._incomplete else _completed(dataset, dims, mask)

    def _variable(
        self,
        array: zarr.Array[Any],
        names: tuple[str, ...],
        sizes: Mapping[str, int],
        group_folder: Path | None,
        item_dims: tuple[str, ...],
        mask: np.ndarray,
    ) -> xr.Variable:
        shape = tuple(min(n, sizes.get(d, n)) for d, n in zip(names, array.shape, strict=True))
        leading = names[: len(item_dims)] == item_dims and _one_item_per_shard(
            array, len(item_dims)
        )
        lazy = StoreArray(
            array,
            folder=None if group_folder is None else group_folder / array.basename,
            shape=shape,
            complete=mask if leading else None,
            checksum=self._checksum,
            mapped_bytes=None if self._chunks is None else _MAPPED_BYTES,
        )
        attrs = dict(array.attrs)
        if self._chunks is None:
            return xr.Variable(names, LazyArray(lazy), attrs)
        return xr.Variable(names, as_dask(lazy, f"{self.location}/{array.path}"), attrs)


def _open_root(location: Location) -> zarr.Group:
    try:
        root = location.root(mode="r")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            problem("no store here", where=str(location), remedy="make one with taqstore ingest")
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(
            problem("the store's zarr.json is damaged", where=str(location), found=str(error))
        ) from error
    check_format(root, str(location))
    return root


def walk(group: zarr.Group) -> Iterator[tuple[str, zarr.Group]]:
    """Finished data groups below a group, with their paths."""
    for _, child in group.groups():
        if _is_finished(child):
            yield child.path, child
        else:
            yield from walk(child)


def _is_finished(group: zarr.Group) -> bool:
    """Whether it holds data; its marker is written when all its arrays are there."""
    marker: Any = group.attrs.get("taqstore")
    return bool(marker) and marker["kind"] in _DATA_KINDS


def _coordinate(
    array: zarr.Array[Any], dims: tuple[str, ...], sizes: Mapping[str, int], values: np.ndarray
) -> xr.Variable:
    clipped = values[tuple(slice(0, sizes.get(d)) for d in dims)]
    if clipped.dtype == object:
        clipped = clipped.astype(str)
    return xr.Variable(dims, clipped, dict(array.attrs))


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
