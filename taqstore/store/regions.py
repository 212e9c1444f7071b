"""One shard's place in an array: alignment, shape and dtype checked before a byte is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from taqstore.errors import LayoutError, problem
from taqstore.layout.template import Array, Template

Values = np.ndarray | Iterable[np.ndarray]


@dataclass(frozen=True)
class Region:
    """One shard's place in an array."""

    start: tuple[int, ...]
    extent: tuple[int, ...]
    shard: tuple[int, ...]
    where: str

    @classmethod
    def of(cls, template: Template, array: Array, start: Sequence[int]) -> Region:
        """The shard of `array` that begins at `start`; LayoutError if none does."""
        shape, shard = template.shape(array), template.shard_shape(array)
        where = f"{template.path}/{array.name}"
        inside = all(0 <= s < n and s % c == 0 for s, n, c in zip(start, shape, shard, strict=True))
        if not inside:
            raise LayoutError(
                problem(
                    f"region starts at {tuple(start)}, not on a shard border {shard} of {shape}",
                    where=where,
                    remedy="write whole shards: writers of a shared shard lose each other's data",
                )
            )
        extent = tuple(min(c, n - s) for s, n, c in zip(start, shape, shard, strict=True))
        return cls(tuple(start), extent, shard, where)

    @property
    def coords(self) -> tuple[int, ...]:
        """Position in the grid of shards."""
        return tuple(s // c for s, c in zip(self.start, self.shard, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """The region inside the array."""
        return tuple(slice(s, s + e) for s, e in zip(self.start, self.extent, strict=True))

    def moved(self, places: Mapping[str, np.ndarray], dims: tuple[str, ...]) -> Region:
        """The same shard at the store's own positions of images or batches."""
        start = tuple(
            int(places[d][s]) if d in places else s for d, s in zip(dims, self.start, strict=True)
        )
        return replace(self, start=start)

    def check(self, values: np.ndarray, array: Array, *, axis: int | None = None) -> None:
        """Compare shape and dtype; `axis` set: of one inner chunk along it."""
        extent = tuple(1 if i == axis else n for i, n in enumerate(self.extent))
        fits = np.can_cast(values.dtype, np.dtype(array.dtype), "safe")
        if values.shape != extent or not fits:
            raise LayoutError(
                problem(
                    f"expected {array.dtype}{list(extent)}",
                    where=self.where,
                    found=f"{values.dtype}{list(values.shape)}",
                )
            )

    def padded(self, values: np.ndarray, array: Array, *, axis: int | None = None) -> np.ndarray:
        """Values in the array's dtype, filled up to a whole chunk at the array's edge."""
        self.check(values, array, axis=axis)
        full = tuple(1 if i == axis else n for i, n in enumerate(self.shard))
        if values.shape == full:
            return values.astype(np.dtype(array.dtype).newbyteorder("<"), copy=False)
        out = np.full(full, array.fill, np.dtype(array.dtype).newbyteorder("<"))
        out[tuple(slice(0, n) for n in values.shape)] = values
        return out

    def chunks(self, values: Values, array: Array) -> Iterator[np.ndarray]:
        """Inner chunks in order along the split dim, checked one by one."""
        axis = array.dims.index(array.split or "")
        if isinstance(values, np.ndarray):
            self.check(values, array)
            values = _split(values, axis)
        given = 0
        for chunk in values:
            given += 1
            yield self.padded(chunk, array, axis=axis)
        if given != self.extent[axis]:
            raise LayoutError(
                problem(
                    f"{given} chunks for {self.extent[axis]} along {array.split}", where=self.where
                )
            )


def _split(values: np.ndarray, axis: int) -> Iterator[np.ndarray]:
    for i in range(values.shape[axis]):
        yield values[(slice(None),) * axis + (slice(i, i + 1),)]


def whole(values: Values) -> np.ndarray:
    """Values as one array, chunks of an unsplit array joined."""
    return values if isinstance(values, np.ndarray) else np.concatenate(list(values))
