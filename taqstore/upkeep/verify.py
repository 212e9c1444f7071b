"""Verify: schema, coordinates, completion masks and the checksum of every chunk."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.errors import MissingError, StoreError, TaqError
from taqstore.files.schema import validate
from taqstore.names import WRITTEN, parse_layer
from taqstore.store.arrays import framing_of
from taqstore.store.groups import CODEC_ERRORS, dimension_names, read_coordinate, read_mask
from taqstore.store.location import Location
from taqstore.store.provenance import read_records
from taqstore.store.shards import MappedShard

if TYPE_CHECKING:
    import zarr

# Variables that hold only some of their shards: {name: flags of those there are}.
_SPARSE = {"output": "output_kept"}


@dataclass(frozen=True)
class Finding:
    """One damaged thing: where it is and what is wrong with it."""

    where: str
    what: str


@dataclass(frozen=True)
class Report:
    """Everything `verify` looked at and found; `damage` empty means the store is whole."""

    damage: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    groups: int
    arrays: int
    chunks: int
    bytes: int


def verify_store(address: str | os.PathLike[str]) -> Report:
    """Check a whole store.

    Raises
    ------
    StoreError
        There is no store, or it is of a newer format.
    """
    from taqstore.store.reader import open_store, walk

    store = open_store(address, incomplete=True)
    check = _Check(store.location)
    root = store.location.root(mode="r", consolidated=False)
    nodes = dict(sorted(walk(root)))
    for path, node in nodes.items():
        check.group(path, node)
    if store.root.metadata.consolidated_metadata is not None:
        check.consolidated(nodes, store.nodes)
    check.provenance(root)
    check.leftovers()
    return Report(
        tuple(check.damage),
        tuple(check.notes),
        len(nodes),
        check.arrays,
        check.chunks,
        check.bytes,
    )


class _Check:
    def __init__(self, location: Location) -> None:
        self.location = location
        self.damage: list[Finding] = []
        self.notes: list[Finding] = []
        self.arrays = self.chunks = self.bytes = 0

    def group(self, path: str, node: zarr.Group) -> None:
        folder = None if self.location.folder is None else self.location.folder / path
        try:
            mask = read_mask(node, folder)
        except (StoreError, *CODEC_ERRORS) as error:
            self.damage.append(Finding(f"{path}/{WRITTEN}", str(error)))
            return
        unwritten = int(mask.size - mask.sum())
        if unwritten:
            self.notes.append(Finding(path, f"{unwritten} of {mask.size} items not written yet"))
        sizes = dict(zip(dimension_names(node[WRITTEN]), mask.shape, strict=True))
        coordinates = str(node.attrs.get("coordinates", "")).split()
        for name, array in node.arrays():
            self.arrays += 1
            where = f"{path}/{name}"
            self._shape(where, array, sizes)
            if name in coordinates or dimension_names(array) == (name,):
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

    def _shape(self, where: str, array: zarr.Array[Any], sizes: dict[str, int]) -> None:
        for dim, length in zip(dimension_names(array), array.shape, strict=True):
            expected = sizes.setdefault(dim, length)
            if length < expected:
                self.damage.append(Finding(where, f"{length} along {dim}, expected {expected}"))

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
        for coords in itertools.product(*map(range, _grid(array.shape, shard))):
            if leading and any(c >= n for c, n in zip(coords, mask.shape, strict=False)):
                continue  # beyond `written`: a growth that was cut short
            flagged = bool(mask[coords[: mask.ndim]]) if leading else bool(mask.any())
            if not flagged:
                continue
            label = f"{where} chunk {'/'.join(map(str, coords))}"
            if not self._exists(array, coords, folder):
                if needed is None or needed[coords[: needed.ndim]]:
                    self.damage.append(Finding(label, "missing, though its item is flagged"))
                continue
            self._chunk(label, array, coords, shard, folder, framing)

    def _exists(self, array: zarr.Array[Any], coords: tuple[int, ...], folder: Path | None) -> bool:
        key = "/".join(("c", *map(str, coords)))
        if folder is not None:
            return (folder / array.basename / key).exists()
        from zarr.core.sync import sync

        return bool(sync(array.store.exists(f"{array.path}/{key}")))

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

    def consolidated(
        self, nodes: Mapping[str, zarr.Group], copies: Mapping[str, zarr.Group]
    ) -> None:
        """The consolidated copy of the metadata, which readers trust, against the arrays' own."""
        for path, node in nodes.items():
            copy = copies.get(path)
            known = {} if copy is None else {n: a.metadata.to_dict() for n, a in copy.arrays()}
            if known != {name: array.metadata.to_dict() for name, array in node.arrays()}:
                self.damage.append(Finding(path, "consolidated metadata is out of date"))

    def provenance(self, root: zarr.Group) -> None:
        try:
            for number, record in enumerate(read_records(root)):
                try:
                    validate("provenance", record)
                except TaqError as error:
                    self.damage.append(Finding(f"provenance record {number}", str(error)))
        except (json.JSONDecodeError, *CODEC_ERRORS) as error:
            self.damage.append(Finding("provenance", str(error)))

    def leftovers(self) -> None:
        for path in _partial_files(self.location.folder):
            self.notes.append(Finding(path, "left by a killed writer; harmless, may be deleted"))


def _partial_files(folder: Path | None) -> Iterator[str]:
    if folder is not None:
        for path in folder.rglob("*.partial"):
            yield str(path.relative_to(folder))


def _grid(shape: tuple[int, ...], shard: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // s) for n, s in zip(shape, shard, strict=True))
