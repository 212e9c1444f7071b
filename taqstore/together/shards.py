"""Shards of one group of one store: told apart, and read whole with their checksums compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from taqstore.layout.item_records import ABSENT, Identity, Item, ItemLayout, Shard
from taqstore.layout.template import Array
from taqstore.together.parts import Part


class Shards:
    """Shards as the template of a part has them; places are those of its grid."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.item_bytes = part.nbytes // max(1, int(part.mask.sum()))
        self._layout = ItemLayout.of_template(part.template)
        self._arrays = {array.name: part.array(array.name) for array in part.template.arrays}

    def of(self, number: Item) -> list[Shard]:
        """Array and place of every shard of an item."""
        return self._layout.shards(number)

    def start(self, name: str, coords: tuple[int, ...]) -> tuple[int, ...]:
        """First index of a shard."""
        extents = self.part.template.shard_shape(self._array(name))
        return tuple(c * n for c, n in zip(coords, extents, strict=True))

    def identities(self, number: Item) -> list[Identity | None] | None:
        """Size and fingerprint of each of an item's files; None where the format tells none."""
        if not all(map(self.known, self._arrays)):
            return None
        return [self.identity(name, coords) for name, coords in self.of(number)]

    def known(self, name: str) -> bool:
        """Whether records tell the files of an array from any others."""
        return self._arrays[name].identity is not None

    def identity(self, name: str, coords: tuple[int, ...]) -> Identity | None:
        """Size and fingerprint of a shard's file; None where its item is not flagged.

        Of arrays alone that are not cut within shards.
        """
        identify = self._arrays[name].identity
        return None if identify is None else identify(self.place(name, coords))

    def stays_whole(self, name: str) -> bool:
        """Whether shards of an array are whole files that records tell from any others."""
        lazy, dims = self._arrays[name], self._array(name).dims
        return self.known(name) and all(
            extent == 1 or np.array_equal(self.part.positions(dim), np.arange(n))
            for dim, extent, n in zip(dims, lazy.shard_shape, lazy.shape, strict=True)
        )

    def stored(self, name: str, coords: tuple[int, ...]) -> int:
        """Bytes of the files that a shard is read from, as records tell; 0 where there is none."""
        identify = self._arrays[name].identity
        if identify is None:
            return 0
        return sum((identify(number) or ABSENT)[0] for number in self._files(name, coords))

    def place(self, name: str, coords: tuple[int, ...]) -> tuple[int, ...]:
        """Place in the store's grid of the shard that begins where this one does."""
        extents = self._arrays[name].shard_shape
        firsts = (int(positions[0]) for positions in self._region(name, coords))
        return tuple(first // extent for first, extent in zip(firsts, extents, strict=True))

    def read(self, name: str, coords: tuple[int, ...]) -> np.ndarray | None:
        """The values of a shard; None where the store has no file of it, as of a sparse variable.

        Raises
        ------
        StoreError
            A file is not the one that was written.
        """
        if not any(self._exists(name, number) for number in self._files(name, coords)):
            return None
        return self._arrays[name].read(tuple(map(_narrow, self._region(name, coords))))

    def _files(self, name: str, coords: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Places in the store's grid of the files that a shard is read from."""
        extents = self._arrays[name].shard_shape
        pairs = zip(self._region(name, coords), extents, strict=True)
        return itertools.product(*(np.unique(at // extent).tolist() for at, extent in pairs))

    def _region(self, name: str, coords: tuple[int, ...]) -> list[np.ndarray]:
        """Positions in the store that a shard holds, along each axis."""
        array = self._array(name)
        shape = self.part.template.shape(array)
        extents = self.part.template.shard_shape(array)
        axes = zip(array.dims, coords, extents, shape, strict=True)
        return [self.part.positions(d)[c * e : min((c + 1) * e, n)] for d, c, e, n in axes]

    def _array(self, name: str) -> Array:
        return self.part.template.array(name)

    def _exists(self, name: str, number: tuple[int, ...]) -> bool:
        lazy = self._arrays[name]
        if lazy.identity is not None:
            return lazy.identity(number) not in (None, ABSENT)
        return self.part.holds(f"{name}/c/{'/'.join(map(str, number))}")


def _narrow(positions: np.ndarray) -> slice | np.ndarray:
    """Neighbouring positions as a slice, which reads without a copy."""
    first, last = int(positions[0]), int(positions[-1])
    return slice(first, last + 1) if last - first + 1 == len(positions) else positions
