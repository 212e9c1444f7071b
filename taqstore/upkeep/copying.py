"""Items of one store brought into another: file by file where they stay whole, else by values."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.layout.checked_pieces import checked_pieces
from taqstore.layout.item_records import ABSENT, Identity, Item
from taqstore.run.outcome import Outcome
from taqstore.run.progress import Progress
from taqstore.store.group_writer import GroupWriter
from taqstore.together.parts import Part
from taqstore.together.shards import Shards

_BUSY = -1
_AT_ONCE = 8
_WAIT = 1.0
"""Seconds between two looks at what other processes are at."""


class Copier:
    """Items of one group of one store, brought into the same group of another.

    Parameters
    ----------
    group
        Open for writing.
    part
        What is taken.
    rows
        Where the images or batches of the part, or what else its items begin with, are in the
        template that the group was opened with.
    compare
        Compare what is there already with what would be copied, by the records of both.
    """

    def __init__(
        self, group: GroupWriter, part: Part, rows: np.ndarray, *, compare: bool = True
    ) -> None:
        self.group, self.part, self.rows, self.compare = group, part, rows, compare
        self.shards = Shards(part)
        names = [array.name for array in part.template.arrays]
        self._whole = {name for name in names if self._stays_whole(name)}

    def copy_all(self, numbers: Iterable[Item], outcome: Outcome, progress: Progress) -> None:
        """Copy items, each compared and then flagged; those that are there already are skipped.

        What other processes are at is waited for: it is theirs when they have finished it, and ours
        when they are gone.

        Raises
        ------
        StoreError
            A file is not the one that was written, or the target has another item in its place.
        """
        path, left = self.part.template.path, list(numbers)
        counts, done = outcome.count(path), self.group.written()
        while left:
            busy = []
            for number, size in zip(left, self._each(left, done), strict=True):
                if size is _BUSY:
                    busy.append(number)
                    continue
                if size is None:
                    counts.skipped += 1
                else:
                    outcome.wrote(path, size=size)
                progress.advance(path, self.shards.item_bytes)
            if len(busy) == len(left):
                time.sleep(_WAIT)
            left = busy

    def _each(self, numbers: Sequence[Item], done: np.ndarray) -> Iterator[int | None]:
        """What came of each item; side by side where requests take their time."""
        copy = partial(self._brought, done=done)
        if not (self.group.backend.remote or self.part.backend.remote):
            yield from map(copy, numbers)
            return
        with ThreadPoolExecutor(_AT_ONCE, "taqstore-copies") as pool:
            coming = [pool.submit(copy, number) for number in numbers]
            try:
                yield from (one.result() for one in coming)
            finally:
                pool.shutdown(cancel_futures=True)

    def _brought(self, number: Item, done: np.ndarray) -> int | None:
        """Bytes of an item that was copied, None of one that is there, or `_BUSY`."""
        targets = [self.target(position) for position in self.positions(number)]
        if not all(done[target] for target in targets):
            size = self._copy(number, targets)
            if size is not None:
                return size
            if not self.group.complete(targets):
                return _BUSY
        self._check_same(number)
        return None

    def _copy(self, number: Item, targets: list[Item]) -> int | None:
        """Bytes of an item, or None where another process is at it or has finished it by now."""
        size = 0
        with self.group.claim(targets[0]) as held:
            if not held or self.group.complete(targets):
                return None
            for name, coords in self.shards.of(number):
                size += self._copy_shard(name, coords)
            self.group.commit(targets)
        return size

    def positions(self, number: Item) -> list[Item]:
        """Positions of an item that hold data; one, where an item has one position."""
        template = self.part.template
        extents = [template.item_extent(dim) for dim in template.item_dims]
        region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(number, extents, strict=True))
        found = np.argwhere(self.part.mask[region]) + [r.start for r in region]
        return [tuple(map(int, one)) for one in found]

    def target(self, position: Item) -> Item:
        """Where a position of the part is in the template of the group."""
        return (int(self.rows[position[0]]), *position[1:])

    def _check_same(self, number: Item) -> None:
        """Refuse an item that the target has otherwise, as far as records of both tell."""
        position = self.positions(number)[0]
        there, shards = self.group.owned(self.target(position)), self.shards.of(number)
        if there is None or not all(name in self._whole for name, _ in shards):
            return
        # Both list the shards of an item in one order.
        if self.compare and [self.shards.identity(*shard) for shard in shards] != [*there.values()]:
            named = ", ".join(map(str, position))
            what = f"item {named} of {self.part.template.path} is there, and another one"
            where, found = str(self.group.location), f"not that of {self.part.store}"
            remedy = "choose another store"
            raise StoreError(problem(what, where=where, found=found, remedy=remedy))

    def _copy_shard(self, name: str, coords: tuple[int, ...]) -> int:
        start = self.shards.start(name, coords)
        moved = self._moved(name, start)
        identity = self.shards.identity(name, coords) if name in self._whole else None
        if identity == ABSENT:
            return 0
        if identity is None:
            values = self.shards.read(name, coords)
            return 0 if values is None else self.group.put(name, moved, values)
        return self.group.put_file(name, moved, self._pieces(name, coords, identity), identity)

    def _pieces(self, name: str, coords: tuple[int, ...], identity: Identity) -> Any:
        place = self.shards.place(name, coords)
        key = "/".join((self.part.template.path, name, "c", *map(str, place)))
        return checked_pieces(self.part.backend, key, identity, _capacity(self.part.node[name]))

    def _moved(self, name: str, start: tuple[int, ...]) -> tuple[int, ...]:
        """A first index of the part in the template of the group."""
        grows, dims = self.part.grows, self.part.template.array(name).dims
        pairs = zip(dims, start, strict=True)
        return tuple(int(self.rows[at]) if dim == grows else at for dim, at in pairs)

    def _stays_whole(self, name: str) -> bool:
        """Whether files of an array are, byte for byte, what the group is to have."""
        mine, theirs = self.part.node[name], self.group.zarr[name]
        return self.shards.stays_whole(name) and _framing(mine) == _framing(theirs)


def _framing(array: Any) -> tuple[Any, ...]:
    """What makes the bytes of an array's files."""
    codecs = [codec.to_dict() for codec in array.metadata.codecs]
    return array.dtype, array.shards, array.chunks, codecs


def _capacity(array: Any) -> int | None:
    """Inner chunks of a full shard; None where a file is one chunk."""
    if array.shards is None:
        return None
    pairs = zip(array.shards, array.chunks, strict=True)
    return int(np.prod([shard // chunk for shard, chunk in pairs]))
