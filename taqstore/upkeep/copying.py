"""Items of one store brought into another: file by file where they stay whole, else by values."""

from __future__ import annotations

from typing import Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.layout.checked_pieces import checked_pieces
from taqstore.layout.item_records import ABSENT, Identity, Item
from taqstore.store.group_writer import GroupWriter
from taqstore.store.groups import dimension_names
from taqstore.together.parts import Part
from taqstore.together.shards import Shards


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
    """

    def __init__(self, group: GroupWriter, part: Part, rows: np.ndarray) -> None:
        self.group, self.part, self.rows = group, part, rows
        self.shards = Shards(part)
        names = [array.name for array in part.template.arrays]
        self._whole = {name for name in names if self._stays_whole(name)}

    def copy(self, number: Item) -> int | None:
        """Copy every shard of an item, compare it, then flag it.

        Returns
        -------
        Bytes, or None where it is another's: another process is at it, or has finished it by now.

        Raises
        ------
        StoreError
            A file of it is not the one that was written: the item is not flagged.
        """
        positions, size = self.positions(number), 0
        targets = [self.target(position) for position in positions]
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

    def same(self, number: Item) -> bool:
        """Whether the group has the item as it is here, told by the records of both.

        Where these cannot tell, as of an item that was cut, it is taken for the same.
        """
        there = self.group.owned(self.target(self.positions(number)[0]))
        shards = self.shards.of(number)
        if there is None or len(self._whole) < len({name for name, _ in shards}):
            return True
        mine = [self.shards.identity(name, coords) for name, coords in shards]
        # Both list the shards of an item in one order.
        return mine == list(there.values())

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
        part, mine, theirs = self.part, self.part.node[name], self.group.zarr[name]
        extents: Any = part.template.shard_shape(part.template.array(name))
        cut = [d for d in part.taken if d in dimension_names(mine)]
        # Of items one index long, files are whole whichever are taken.
        single = [d for d in cut if extents[dimension_names(mine).index(d)] == 1]
        known = self.shards.known(name)
        return known and cut == single and _framing(mine) == _framing(theirs)


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


def differs(where: str, item: str) -> StoreError:
    """The error of an item that two stores have, and not the same."""
    what = f"the target has another item {item}"
    return StoreError(problem(what, where=where, remedy="choose another store"))
