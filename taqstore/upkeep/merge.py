"""Merging: two runs of one model and one configuration become one store, shard by shard."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.arrays.store_array import StoreArray
from taqstore.asked import meant
from taqstore.errors import LayoutError, MissingError, StoreError, problem
from taqstore.files.staged import whole_file
from taqstore.layout.item_records import ABSENT, Item
from taqstore.layout.template import Array, Template
from taqstore.metadata.provenance import each_record, make_record
from taqstore.names import TRAJECTORIES, kind_of, split_group
from taqstore.place.location import Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.outcome import Outcome
from taqstore.run.progress import SILENT, Progress
from taqstore.store.group_writer import GroupWriter
from taqstore.store.groups import GROWING
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter, create_store
from taqstore.upkeep.merge_checks import Duplicates, check_alike, numbered
from taqstore.upkeep.merge_parts import Part, can_grow, joined, read_part
from taqstore.upkeep.merge_united import (
    ALONE,
    UNITED,
    check_shared,
    fresh_of,
    rows_of,
    united,
)

_COMMAND = "merge"
_WORK = "merge.json"


@takes_storage_options
def merge(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    groups: Sequence[str] = (),
    renumber: bool = False,
    duplicates: Duplicates = "refuse",
    progress: Progress = SILENT,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Concatenate two stores along image and batch into a new one.

    Values are copied without loss, by whole shards; the result is, byte for byte, what one run over
    the images of both would have written. Sensitivities, static scores and trajectories of judged
    images are united item by item: images that both have are one, with the targets of both. Both
    stores' provenance is carried over. Interrupted, the same call goes on where it stopped.

    Parameters
    ----------
    first, second
        The stores, which stay as they are. Only their complete items are taken.
    out
        The new store, or one that this very merge has begun.
    groups
        Groups to merge; by default all that are made of images or batches. Statistics that arrived
        already reduced cannot be merged and are left out, with a note.
    renumber
        Number the second store's images after the first's, for runs that both count from 0.
    duplicates
        What to do with an image of the second store that the first has too (same prompt, seed and
        guidance weight; or, without latents, equal extrema throughout): refuse, skip it, or keep it
        twice, which counts its statistics twice.
    progress
        Told of bytes, item by item.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MissingError
        A group is in one store only.
    LayoutError
        Steps, sigmas, layers, layouts, model or configuration differ; all fields are named.
    TaqError
        Image ids collide, or there are duplicates.
    StoreError
        A store is missing, or `out` is something else.
    """
    stores = [
        open_store(address, chunks=None, checksum=True, incomplete=True)
        for address in (first, second)
    ]
    outcome = Outcome()
    paths = _shared_groups(stores, groups, outcome.notes)
    found = {
        path: [read_part(store, path) if path in store.paths else None for store in stores]
        for path in paths
    }
    parts, offset = _together(found, renumber, duplicates)
    inputs = [_described(store) for store in stores]
    options = {"renumber": renumber, "offset": offset, "duplicates": duplicates}
    with _begun(stores, out, {"inputs": inputs, "options": options}) as writer:
        progress.start(sum(_nbytes(part) for pair in parts.values() for part in pair))
        for path, pair in parts.items():
            _copy_group(writer, path, pair, outcome, progress)
        _carry_provenance(writer, stores)
        if not _recorded(writer, inputs):
            counts = {"written": outcome.written}
            record = make_record(
                _COMMAND, parameters=options, inputs=inputs, groups=paths, counts=counts
            )
            writer.record(record)
    if writer.location.folder is not None:
        writer.location.beside(_WORK).unlink(missing_ok=True)
    return outcome


def _together(
    found: Mapping[str, Sequence[Part | None]], renumber: bool, duplicates: Duplicates
) -> tuple[dict[str, tuple[Part, ...]], int]:
    """Parts of each group as they are put together, and what is added to the second's images."""
    both = {path: [p for p in pair if p is not None] for path, pair in found.items()}
    check_alike({path: pair for path, pair in both.items() if len(pair) > 1})
    shared = {path: pair for path, pair in both.items() if kind_of(path) not in UNITED}
    others = {path: pair for path, pair in found.items() if path not in shared}
    first = (pair[0] for pair in others.values())
    last = [int(p.images.max(initial=-1)) for p in first if p is not None and p.grows in GROWING]
    pairs, offset = numbered(shared, renumber, duplicates, least=1 + max(last, default=-1))
    parts: dict[str, tuple[Part, ...]] = {**pairs, **united(others, offset=offset)}
    for path, pair in parts.items():
        if path in others and len(pair) > 1 and duplicates != "skip":
            check_shared(path, pair[0], pair[1], _shards_of)
    return {path: parts[path] for path in found}, offset


def _shards_of(part: Part, array: Array, item: Item) -> Iterator[np.ndarray | None]:
    source = _Source(part)
    return (source.read(array, start) for start in source.starts(array, item))


def _shared_groups(stores: Sequence[Store], groups: Sequence[str], notes: list[str]) -> list[str]:
    every = sorted({*stores[0], *stores[1]})
    growing = [
        p
        for p in every
        if kind_of(p) in UNITED or all(can_grow(s, p) for s in stores if p in s.paths)
    ]
    notes += [f"{p} is not made of images or batches; left out" for p in every if p not in growing]
    alone = [p for p in growing if _may_be_alone(p) and any(p not in s.paths for s in stores)]
    if not groups:
        notes += [
            f"{path} is of one store alone, and can be made again; left out" for path in alone
        ]
    wanted = list(dict.fromkeys(groups)) or [path for path in growing if path not in alone]
    for path in wanted:
        if path not in growing:
            raise MissingError(problem(f"no group {path!r} to merge", remedy=meant(path, growing)))
        for store in stores:
            if path not in store.paths and kind_of(path) not in ALONE:
                remedy = "name the groups to merge with --group"
                where = str(store.location)
                raise MissingError(problem(f"no group {path!r}", where=where, remedy=remedy))
    if not wanted:
        raise MissingError(problem("neither store has a group made of images or batches"))
    return wanted


def _may_be_alone(path: str) -> bool:
    """Whether a group says nothing of a store that lacks it: trajectories of judged images."""
    return split_group(path)[0] == TRAJECTORIES


def _described(store: Store) -> dict[str, Any]:
    name = store.location.name
    return {"name": name, "kind": "store", "uuid": store.root.uuid, "digest": store.digest}


def _begun(
    stores: Sequence[Store], out: str | os.PathLike[str], work: Mapping[str, Any]
) -> StoreWriter:
    """The target, open: new, or begun or finished by this same merge.

    Raises
    ------
    StoreError
        It is one of the sources, or holds something else.
    """
    location = Location.parse(out)
    if any(location.same_as(store.location) for store in stores):
        raise StoreError(problem("the target is one of the sources", where=str(location)))
    writer = create_store(location.url)
    recorded = _recorded(writer, work["inputs"])
    note = None if location.folder is None else location.beside(_WORK)
    begun = note is not None and _read_note(note) == work
    if writer.root_record().groups and not begun and not recorded:
        what, remedy = "the target holds something else", "choose another path"
        raise StoreError(problem(what, where=str(location), remedy=remedy))
    if note is not None and not recorded:
        with whole_file(note, force=True) as fresh:
            fresh.write_text(json.dumps(work), encoding="utf-8")
    return writer


def _read_note(path: Path) -> Any:
    """What a merge that was cut short left beside its target; None where there is nothing."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _recorded(writer: StoreWriter, inputs: Sequence[Mapping[str, Any]]) -> bool:
    records = _records(writer)
    return any(r["command"] == _COMMAND and r["inputs"] == list(inputs) for r in records)


def _records(writer: StoreWriter) -> list[dict[str, Any]]:
    found = each_record(writer.backend, writer.root_record().records)
    return [record for record in found if isinstance(record, dict)]


def _carry_provenance(writer: StoreWriter, stores: Sequence[Store]) -> None:
    there = {record["id"] for record in _records(writer)}
    for store in stores:
        for record in store.provenance:
            if record["id"] not in there:
                there.add(record["id"])
                writer.record(record)


def _copy_group(
    writer: StoreWriter, path: str, pair: Sequence[Part], outcome: Outcome, progress: Progress
) -> None:
    group = writer.group(_joined(path, pair))
    done = group.written()
    counts = outcome.count(path)
    for part, rows in zip(pair, _rows(path, pair), strict=True):
        source = _Source(part)
        for item in map(tuple, np.argwhere(part.mask).tolist()):
            target = (int(rows[item[0]]), *item[1:])
            size = None if done[target] else _copy_item(group, source, item, target)
            if size is None:
                counts.skipped += 1
            else:
                outcome.wrote(path, size=size)
            progress.advance(path, source.item_bytes)


def _joined(path: str, pair: Sequence[Part]) -> Template:
    first = pair[0]
    if len(pair) == 1:
        return first.template
    return joined(first, fresh_of(*pair) if kind_of(path) in UNITED else pair[1])


def _rows(path: str, pair: Sequence[Part]) -> list[np.ndarray]:
    """Where each image or batch of each part is in the group."""
    found = [np.arange(len(pair[0].places))]
    if len(pair) > 1 and kind_of(path) in UNITED:
        found.append(rows_of(*pair))
    elif len(pair) > 1:
        found.append(len(found[0]) + np.arange(len(pair[1].places)))
    return found


def _copy_item(group: GroupWriter, source: _Source, item: Item, target: Item) -> int | None:
    """Copy every shard of an item, then flag it; its bytes, or None where it is another's.

    Another process may be at it, or have finished it by now.
    """
    size = 0
    with group.claim(target) as held:
        if not held or group.complete([target]):
            return None
        for array in source.part.template.arrays:
            for start in source.starts(array, item):
                values = source.read(array, start)
                if values is not None:
                    moved = (target[0], *start[1:])
                    size += group.put(array.name, moved, values)
        group.commit([target])
    return size


class _Source:
    """One group's shards, read whole and with their checksums compared."""

    def __init__(self, part: Part) -> None:
        self.part = part
        items = max(1, int(part.mask.sum()))
        self.item_bytes = _nbytes(part) // items
        self._arrays = {array.name: part.array(array.name) for array in part.template.arrays}

    def starts(self, array: Array, item: Item) -> Iterable[tuple[int, ...]]:
        """First indices of the shards of `array` that belong to an item of the template."""
        template = self.part.template
        axes = template.item_dims
        if array.dims[: len(axes)] != axes:
            where = f"{template.path}/{array.name}"
            raise LayoutError(problem("a variable without the group's item dims", where=where))
        shape, shard = template.shape(array), template.shard_shape(array)
        grids = [range(0, n, s) for n, s in zip(shape, shard, strict=True)][len(axes) :]
        return (item + rest for rest in itertools.product(*grids))

    def read(self, array: Array, start: tuple[int, ...]) -> np.ndarray | None:
        """The shard that starts there; None where there is none, as of a sparse variable."""
        lazy = self._arrays[array.name]
        place = (int(self.part.places[start[0]]), *start[1:])
        ends = zip(place, lazy.shard_shape, lazy.shape, strict=True)
        region = tuple(slice(p, min(p + s, n)) for p, s, n in ends)
        number = [p // s for p, s in zip(place, lazy.shard_shape, strict=True)]
        return lazy.read(region) if self._exists(lazy, number) else None

    def _exists(self, lazy: StoreArray, number: Sequence[int]) -> bool:
        if lazy.identity is not None:
            return lazy.identity(tuple(number)) not in (None, ABSENT)
        key = "/".join(("c", *map(str, number)))
        if lazy.folder is not None:
            return Path(lazy.folder, key).exists()
        from zarr.core.sync import sync

        return bool(sync(lazy.array.store.exists(f"{lazy.array.path}/{key}")))


def _nbytes(part: Part) -> int:
    """Uncompressed size of the data of a part."""
    shapes = ((a, part.template.shape(a)) for a in part.template.arrays)
    return sum(int(np.prod(shape)) * np.dtype(a.dtype).itemsize for a, shape in shapes)
