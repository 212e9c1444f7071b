"""Reading: a store as a mapping of group paths to lazy xarray Datasets."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from taqstore.arrays.pieces import Pieces
from taqstore.arrays.plain import PlainGroup
from taqstore.arrays.store_array import ArrayReader
from taqstore.asked import listed, meant
from taqstore.errors import MissingError, StoreError, problem
from taqstore.items.flags import read_group
from taqstore.layout.nodes import GroupNode
from taqstore.metadata.provenance import BadRecord, each_record
from taqstore.metadata.root import read_root
from taqstore.metadata.sealed import foreign, marker_of
from taqstore.names import (
    ACTIVATIONS,
    FORMAT_VERSION,
    WEIGHTS,
    LayerName,
    parse_layer,
    site_of,
    split_group,
)
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store import format1
from taqstore.store.groups import read_coordinate
from taqstore.store.naming import name_in_group, name_in_store, path_in_store
from taqstore.store.opening import (
    LATE,
    Identities,
    Opened,
    Way,
    dataset_of,
    identities_of,
    lazy_array,
    plain_of,
)
from taqstore.store.shown import html_of, lines_of

if TYPE_CHECKING:
    import xarray as xr
    import zarr

    _Groups: TypeAlias = Mapping[str, xr.Dataset]
else:
    _Groups = Mapping


_log = logging.getLogger(__name__)


@takes_storage_options
def open_store(
    address: Store | Address,
    *,
    chunks: Literal["late", "auto"] | None = "late",
    checksum: bool | None = None,
    incomplete: bool = False,
    storage_options: StorageOptions | None = None,
) -> Store:
    """Open a store for reading.

    Parameters
    ----------
    address
        A path or URL (`file://`, `memory://`, any scheme fsspec knows). A store that is open
        already is not opened again, but read in the way asked for here.
    chunks
        ``"late"``: selections are read on use, without dask; analyses, figures, reports and exports
        put what they are given behind dask themselves, in blocks of 8 to 32 MB. ``"auto"``:
        Datasets are dask-backed at once, in blocks of whole files. ``None``: no dask, in analyses
        neither; selections are read on use, as views of memory-mapped files where the store is
        local.
    checksum
        Compare each chunk's crc32c when it is first read. Default: yes, but for the views of
        ``None`` (`verify` checks everything at once).
    incomplete
        Also show items whose flag is not set; they read as NaN or zero.
    storage_options
        How buckets and servers are reached, by name, as obstore or fsspec calls it. Default: what
        the environment says.

    Raises
    ------
    StoreError
        There is no store there, or it is of a newer format.
    """
    check = chunks is not None if checksum is None else checksum
    if isinstance(address, Store):
        return address.reading(chunks=chunks, checksum=check, incomplete=incomplete)
    return Store(Location.parse(address), chunks=chunks, checksum=check, incomplete=incomplete)


class Store(_Groups):
    """A store open for reading. Groups are opened when asked for and kept.

    Attributes
    ----------
    location
        Where it is: ``str(store.location)`` is its address.
    root
        What its root document says: `format`, `uuid`, `created_by`, `groups`.
    paths
        Keys of all groups, those that are damaged included.
    digest
        Identity of the content: changes with every recorded write.
    provenance
        Finished provenance records that can be read, oldest first: who wrote what, from what.
    bad_records
        Those that are damaged.
    backend
        Where its bytes are read.
    """

    _pieces: Pieces | None = None
    _staged: tuple[int, ...] = ()

    def __init__(
        self, location: Location, *, chunks: str | None, checksum: bool, incomplete: bool
    ) -> None:
        self.location, self._chunks = location, chunks
        self._checksum, self._incomplete = checksum, incomplete
        self.backend = location.backend()
        self._pieces = Pieces(self.backend) if self.backend.remote else None
        self.root = read_root(self.backend, str(location))
        self._datasets: dict[str, xr.Dataset] = {}
        self._views: dict[str, Opened] = {}
        self._labels: dict[str, tuple[str, ...]] = {}
        self._ways: dict[tuple[Any, ...], Store] = {(chunks, checksum, incomplete): self}
        _log.debug("opened %s, format %d", location, self.root.format)

    def __repr__(self) -> str:
        return lines_of(str(self.location), self)

    def _repr_html_(self) -> str:
        return html_of(self)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Paths of all data groups, those that are damaged included."""
        return self._format1.groups() if self.root.format == 1 else self.root.groups

    @cached_property
    def _format1(self) -> format1.Tree:
        return format1.tree_of(self.backend, self.root.copies)

    def node(self, path: str) -> zarr.Group:
        """A group as zarr sees it.

        Raises
        ------
        MissingError
            No such group.
        StoreError
            It is lost or damaged.
        """
        group: zarr.Group = self._view(path).zarr
        return group

    def documents(self, path: str) -> Any:
        """A group as its documents tell it, zarr not asked: attributes and arrays as of `node`."""
        return self._view(path).node

    def mask(self, path: str) -> np.ndarray:
        """Completion mask of a group, over its item dims; raises as `node`."""
        return self._view(path).mask

    def stored_bytes(self, path: str) -> dict[str, int] | None:
        """Bytes on disk of each data variable of a group, as its records tell; None in format 1."""
        items = self._view(path).items
        return None if items is None else items.stored_bytes()

    def identities(self, path: str, name: str) -> Identities | None:
        """What tells the files of an array from any others; None in format 1. Raises as `node`."""
        return identities_of(self._view(path), name)

    def array(self, path: str, name: str, way: Way | None = None) -> ArrayReader:
        """A data variable of a group, nothing of it read; raises as `node`.

        Parameters
        ----------
        way
            How to read it; by default as the store is.
        """
        view, own = self._view(path), (self._chunks, self._checksum, self._incomplete)
        array: Any = view.node[name]
        found = replace(view, pieces=self._pieces)
        return lazy_array(found, array, self._folder(path), way or own)

    def _view(self, path: str) -> Opened:
        if path not in self._views:
            if path not in self.paths:
                what, remedy = f"no group {path!r}", meant(path, self.paths)
                raise MissingError(problem(what, where=str(self.location), remedy=remedy))
            self._views[path] = self._find(path)
        return self._views[path]

    def _find(self, path: str) -> Opened:
        where = str(self.location)
        opener = partial(self.location.zarr_store, read_only=True)
        _log.debug("group %s", path)
        # Of a store under upgrade, some groups are of format 2 already.
        if self.root.format == 1 and self._version(path) != FORMAT_VERSION:
            loaded = format1.load_group(self.backend, path, self._format1)
            mask = format1.read_mask(self.backend, loaded)
            return Opened(GroupNode(loaded, opener), mask, pieces=self._pieces)
        root = self.root
        try:
            items = read_group(
                self.backend,
                path,
                copies=root.copies,
                uuid=root.uuid,
                where=where,
                lean=self.backend.remote,
            )
        except StoreError:
            if self.backend.names(path):
                raise
            items = None
        if items is None:
            what = "this group is lost: the root lists it, and it is not there"
            remedy = "see taqstore verify, then taqstore repair"
            raise StoreError(problem(what, where=f"{where} {path}", remedy=remedy))
        return Opened(GroupNode(items.loaded, opener), items.mask, items, self._pieces)

    def _version(self, path: str) -> Any:
        return marker_of(self._format1.documents.get(path, {})).get("version")

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __contains__(self, path: object) -> bool:
        """Whether there is such a group, damaged or not: nothing of it is read."""
        return isinstance(path, str) and path.strip("/") in self.paths

    def opener(self) -> Callable[[], Store]:
        """What opens it again in another process: an address goes there, nothing that was read."""
        return partial(
            Store,
            self.location,
            chunks=self._chunks,
            checksum=self._checksum,
            incomplete=self._incomplete,
        )

    def reading(self, *, chunks: str | None, checksum: bool, incomplete: bool) -> Store:
        """The same open store, its groups read in another way; options as of `open_store`."""
        way = chunks, checksum, incomplete
        if way not in self._ways:
            view = copy(self)
            view._chunks, view._checksum, view._incomplete = way
            view._datasets, view._labels = {}, {}
            self._ways[way] = view
        return self._ways[way]

    @property
    def remote(self) -> bool:
        """Whether it is on no local disk, so that each request takes its time."""
        return self.backend.remote

    def blocks(self) -> Store:
        """The same open store, its groups behind dask where they are to be so late."""
        if self._chunks != LATE:
            return self
        way = ("auto", self._checksum, self._incomplete, *self._staged)
        if way not in self._ways:
            view = copy(self)
            view._chunks, view._datasets = "auto", {}
            self._ways[way] = view
        return self._ways[way]

    def staging(self, most: int) -> Store:
        """The same open store; what it fetches is staged on the local disk and fetched once.

        Parameters
        ----------
        most
            Bytes at most, of all stores of this process together; what was used least lately makes
            room. 0, or a store that is on a local disk: nothing is staged.
        """
        if not self.remote or not most:
            return self
        way = self._chunks, self._checksum, self._incomplete, most
        if way not in self._ways:
            view = copy(self)
            view._pieces, view._staged = Pieces(self.backend, staged=most), (most,)
            view._datasets, view._labels = {}, {}
            self._ways[way] = view
        return self._ways[way]

    def refresh(self, *paths: str) -> None:
        """Look at groups again: items flagged since they were opened are seen, and groups made.

        This holds for the store however it is read. Datasets that were handed out stay as they are.
        """
        root = read_root(self.backend, str(self.location))
        for view in self._ways.values():
            view.root = root
            for name in ("digest", "paths", "_format1"):
                view.__dict__.pop(name, None)
            for path in paths:
                view._views.pop(path, None)
                view._datasets.pop(path, None)
                view._labels.pop(path, None)

    def renewed(self, *paths: str) -> Store:
        """The store as it is now, as another object; groups that are not named are not read again.

        What was handed out stays as it is, also to threads that use it at this moment.
        """
        view = copy(self)
        view.root = read_root(self.backend, str(self.location))
        for name in ("digest", "paths", "_format1"):
            view.__dict__.pop(name, None)
        there = [path for path in self._views if path not in paths and path in view.paths]
        view._views = {path: self._views[path] for path in there}
        view._labels = {path: self._labels[path] for path in there if path in self._labels}
        # Datasets carry the digest of their store.
        view._datasets = {}
        view._ways = {(view._chunks, view._checksum, view._incomplete): view}
        return view

    def __getitem__(self, path: str) -> xr.Dataset:
        """A group as a lazy Dataset of its completed items.

        Raises
        ------
        MissingError
            No such group; the message lists those there are.
        StoreError
            It is lost or damaged.
        """
        name = path.strip("/")
        if name not in self._datasets:
            self._datasets[name] = self._open(name, self._view(name))
        return self._datasets[name]

    def plain(self, path: str) -> PlainGroup:
        """A group without xarray, as `__getitem__` gives it, and raises; it is not kept."""
        view, way = self._view(path), (self._chunks, self._checksum, self._incomplete)
        with foreign(f"{self.location} {path}"):
            found = replace(view, pieces=self._pieces)
            return plain_of(found, self._folder(path), self.digest, way)

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
        from taqstore.arrays.one_label import at_label

        layer = parse_layer(name)
        sited = [path for path in self if site_of(path) == layer.site]
        # Weights are of the linear itself, statistics of the tensor that it reads.
        labels = {path: layer.layer for path in sited if layer.layer in self._layers(path)}
        for path in sited:
            if path not in labels and layer.input.layer in self._layers(path):
                labels[path] = layer.input.layer
        found = {_source_name(split_group(path)[0]): path for path in sited if path in labels}
        if source is not None:
            source = source if source in found else site_of(source)
        elif len(found) > 1 and ACTIVATIONS in found:
            source = ACTIVATIONS
        if (source is None and len(found) != 1) or (source is not None and source not in found):
            what = (
                f"layer {layer.full} is in {len(found)} groups"
                if found
                else f"no statistics of {layer.full}"
            )
            there = ", ".join(found.values())
            remedy = f"choose source={' or '.join(found)}" if found else self._near(layer)
            raise MissingError(problem(what, where=str(self.location), found=there, remedy=remedy))
        chosen = found[source or next(iter(found))]
        dataset = at_label(self[chosen], "layer", labels[chosen])
        if layer.projection and "projection" in dataset.dims:
            dataset = dataset.sel(projection=layer.projection)
        return dataset

    def _near(self, layer: LayerName) -> str:
        """What to say of a layer that is not there."""
        if not layer.site:
            has = [path for path in self if layer.layer in self._layers(path)]
            full = dict.fromkeys(f"{layer.layer}.{site_of(path)}" for path in has)
            if full:
                return f"name what it is the input of: {listed(full)}"
        sites = dict.fromkeys(site for path in self if "." in (site := site_of(path)))
        sited = [path for path in self if site_of(path) == layer.site]
        if not sited:
            if not layer.site and layer.stream and sites:
                return f"name a linear, such as {layer.full}.{next(iter(sites))}; {listed(sites)}"
            return meant(layer.site, sites)
        labels = dict.fromkeys(label for path in sited for label in sorted(self._layers(path)))
        return meant(layer.full, [f"{label}.{layer.site}" for label in labels])

    def name(self, text: str, *, group: str | None = None) -> str:
        """What this store calls a layer, a block, a site or a group; any known spelling will do.

        Parameters
        ----------
        text
            `mm_00_img`, `blocks.0.image.mlp.fc2`, `transformer_blocks.0.attn.to_q`, …
        group
            Key of a group, where it is to be a label of this one: statistics of adaLN inputs are
            labelled `modulation` where weights are labelled `mm0.img`, and effects of single
            linears have their full names.

        Returns
        -------
        str
            Of a layer or a linear, the label for ``.sel(layer=...)``; of a block and of a site,
            their names (`mm0`, `mlp.fc2`); of a group, its key.

        Raises
        ------
        MissingError
            The spelling is not known, or nothing here is called so.

        >>> import taqstore
        >>> from taqstore.testing import make_store
        >>> store = taqstore.open_store(make_store("named.zarr"))
        >>> store.name("mm_00_img"), store.name("fc2_in"), store.name("activations/o_proj")
        ('mm0.img', 'mlp.fc2', 'activations/attn.o_proj')
        """
        if group is not None:
            key = path_in_store(group.strip("/"), self) or group
            return name_in_group(text, self[key], f"{self.location} {key}")
        return name_in_store(text, self, self._layers, where=str(self.location))

    def _layers(self, path: str) -> tuple[str, ...]:
        """Layer labels of a group, none where it has no layers; read once."""
        if path not in self._labels:
            node = self.documents(path)
            labels = read_coordinate(node, "layer") if "layer" in node else ()
            self._labels[path] = tuple(map(str, labels))
        return self._labels[path]

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Finished provenance records that can be read, oldest first."""
        return [record for record in self._records() if isinstance(record, dict)]

    @property
    def bad_records(self) -> list[BadRecord]:
        """Provenance records that are damaged: an accessory that never takes the data with it."""
        return [record for record in self._records() if isinstance(record, BadRecord)]

    def _records(self) -> list[dict[str, Any] | BadRecord]:
        count = self.root.records
        if self.root.format == 1:
            count = format1.count_records(self.backend)
        return list(each_record(self.backend, count))

    @cached_property
    def digest(self) -> str:
        """Identity of the store's content: changes with every recorded write."""
        if self.root.format > 1:
            return self.root.digest
        content = {"store": self.root.identity, "records": self.provenance}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _open(self, path: str, view: Opened) -> xr.Dataset:
        way = self._chunks, self._checksum, self._incomplete
        with foreign(f"{self.location} {path}"):
            found = replace(view, pieces=self._pieces)
            return dataset_of(
                found, f"{self.location}/{path}", self._folder(path), self.digest, way
            )

    def _folder(self, path: str) -> Path | None:
        folder = self.location.real
        return None if folder is None else folder / path


def _source_name(prefix: str) -> str:
    """What a source is called in short; weight sets, which name themselves, in full."""
    return prefix if prefix.startswith(f"{WEIGHTS}/") else site_of(prefix)
