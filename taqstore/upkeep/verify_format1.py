"""Verify a store of format 1: coordinates, completion masks and the checksum of every chunk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.inner_chunks import framing_of
from taqstore.errors import MissingError, StoreError, TaqError
from taqstore.layout.array_documents import is_coordinate
from taqstore.layout.shards import CODEC_ERRORS, MappedShard
from taqstore.metadata.sealed import marker_of
from taqstore.names import FORMAT_VERSION, ITEMS, WRITTEN, parse_layer
from taqstore.store.format1 import Tree, absent_labels, load_group, read_mask, tree_of
from taqstore.store.groups import read_coordinate
from taqstore.upkeep.group_check import Finding, GroupCheck

if TYPE_CHECKING:
    import zarr

    from taqstore.store.reader import Store

# Variables that hold only some of their shards: {name: flags of those there are}.
_SPARSE = {"output": "output_kept"}


def check_format1(store: Store) -> Format1Check:
    """Check a store of format 1 as far as it can be told: nothing there names an item's files."""
    check, tree = Format1Check(store), tree_of(store.backend)
    for path in tree.groups():
        check.group(path, tree)
    if store.root.copies is not None:
        check.copied(tree, tree_of(store.backend, store.root.copies))
    check.groups = len(tree.groups())
    return check


class Format1Check:
    """What was looked at and found."""

    def __init__(self, store: Store) -> None:
        self.backend, self.real = store.backend, store.location.real
        self.zarr_store = store.location.zarr_store(read_only=True)
        self.damage: list[Finding] = []
        self.notes: list[Finding] = []
        self.groups = self.arrays = self.chunks = self.bytes = 0

    def found(self, where: str, what: str) -> None:
        """Something that is not as it was written."""
        self.damage.append(Finding(where, what))

    def group(self, path: str, tree: Tree) -> None:
        """Look at one group; one of format 2, in a store that is being upgraded, by its records."""
        if marker_of(tree.documents.get(path, {})).get("version") == FORMAT_VERSION:
            self.damage += GroupCheck(path, self.backend, {}).run().damage
            return
        try:
            loaded = load_group(self.backend, path, tree)
            mask = read_mask(self.backend, loaded)
            node = loaded.node(self.zarr_store)
        except StoreError as error:
            self.found(path, str(error))
            return
        for where, what, lost in absent_labels(self.backend, path, tree):
            (self.damage if lost else self.notes).append(Finding(where, what))
        unwritten = int(mask.size - mask.sum())
        if unwritten:
            self.notes.append(Finding(path, f"{unwritten} of {mask.size} items not written yet"))
        folder = None if self.real is None else self.real / path
        for name, document in tree.members(path).items():
            if name.startswith(f"{ITEMS}/"):
                continue
            self.arrays += 1
            array: Any = node[name]
            where = f"{path}/{name}"
            if is_coordinate(loaded.document, name, document):
                self._coordinate(where, node, name)
            else:
                self._data(where, array, mask, folder, self._needed(node, name))

    def _needed(self, node: zarr.Group, name: str) -> np.ndarray | None:
        """Which shards of a sparse variable there must be; None: all that are flagged."""
        if name not in _SPARSE:
            return None
        flags: Any = node[_SPARSE[name]]
        try:
            return np.asarray(flags[...], bool)
        except CODEC_ERRORS:
            return None  # the flags are an array of their own, whose damage is found there

    def _coordinate(self, where: str, node: zarr.Group, name: str) -> None:
        if name == WRITTEN:
            return
        try:
            values = read_coordinate(node, name)
        except TaqError as error:
            self.damage.append(Finding(where, str(error)))
            return
        self.chunks += 1
        self.bytes += values.nbytes
        labels = values.ndim == 1 and name in ("step", "image", "batch", "layer")
        if labels and len(set(values.tolist())) < len(values):
            self.damage.append(Finding(where, "labels repeat"))
        if name == "layer":
            self._layers(where, values)

    def _layers(self, where: str, values: np.ndarray) -> None:
        for value in values:
            try:
                parse_layer(str(value))
            except MissingError as error:
                self.damage.append(Finding(where, str(error)))

    def _data(
        self,
        where: str,
        array: zarr.Array[Any],
        mask: np.ndarray,
        folder: Path | None,
        needed: np.ndarray | None,
    ) -> None:
        shard = tuple(array.shards or array.chunks)
        framing = framing_of(array) if folder is not None else None
        leading = all(n == 1 for n in shard[: mask.ndim]) and array.shape[: mask.ndim] >= mask.shape
        for coords in _flagged(mask, _grid(array.shape, shard), leading=leading):
            key = "/".join((where, "c", *map(str, coords)))
            label = f"{where} chunk {'/'.join(map(str, coords))}"
            try:
                size = self.backend.size(key)
            except StoreError as error:
                self.found(label, str(error))
                continue
            if size is None:
                if needed is None or needed[coords[: needed.ndim]]:
                    self.damage.append(Finding(label, "missing, though its item is flagged"))
                continue
            self._chunk(label, array, coords, shard, folder, framing)

    def _chunk(
        self,
        label: str,
        array: zarr.Array[Any],
        coords: tuple[int, ...],
        shard: tuple[int, ...],
        folder: Path | None,
        framing: Any,
    ) -> None:
        self.chunks += 1
        try:
            if folder is not None and framing is not None:
                mapped = MappedShard(
                    folder.joinpath(array.basename, "c", *map(str, coords)), framing
                )
                mapped.check()
                self.bytes += mapped.view.nbytes
            else:
                region = tuple(
                    slice(c * n, (c + 1) * n) for c, n in zip(coords, shard, strict=True)
                )
                self.bytes += np.asarray(array[region]).nbytes
        except (StoreError, *CODEC_ERRORS) as error:
            self.damage.append(Finding(label, str(error)))

    def copied(self, tree: Tree, copies: Tree) -> None:
        """The root's copy of the metadata, which readers trust, against the documents."""
        for path in sorted({*tree.groups(), *copies.groups()}):
            # Inside its copy zarr says of every group that its own metadata are inline.
            same = _own(tree.documents.get(path)) == _own(copies.documents.get(path))
            if not same or tree.members(path) != copies.members(path):
                self.found(path, "consolidated metadata is out of date")


def _own(document: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (document or {}).items() if k != "consolidated_metadata"}


def _flagged(
    mask: np.ndarray, grid: tuple[int, ...], *, leading: bool
) -> Iterator[tuple[int, ...]]:
    """Places of the shards that flagged items need."""
    if not leading:
        yield from itertools.product(*map(range, grid)) if mask.any() else ()
        return
    for item in np.argwhere(mask).tolist():
        for rest in itertools.product(*map(range, grid[mask.ndim :])):
            yield (*item, *rest)


def _grid(shape: tuple[int, ...], shard: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(shape, shard, strict=True))
