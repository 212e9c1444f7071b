"""Answers from arrays that are still to be read, in parts: a task for each, and no other graph.

Of a store of a few steps the graphs that dask and xarray make of every step of a calculation take
longer than all there is to read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import numpy as np

from taqstore.arrays.lazy import LazyArray

if TYPE_CHECKING:
    import xarray as xr

PREFIX = "taqstore-parts-"
"""Begins the names of what `in_parts` makes: their tasks are as they are to be."""

Answer = Mapping[Any, Mapping[Any, Any]]


@dataclass(frozen=True)
class Unread:
    """A variable that is still to be read, by slices or positions along each of its dimensions."""

    lazy: LazyArray
    dims: tuple[Any, ...]

    @classmethod
    def of(cls, variable: xr.Variable) -> Unread | None:
        """None where it was read, is behind dask, or is opened to be read at once."""
        lazy = variable._data
        if not isinstance(lazy, LazyArray) or not lazy.array.token:
            return None
        if any(isinstance(key, (int, np.integer)) for key in lazy.key.tuple):
            return None
        return cls(LazyArray(lazy.array.for_a_pass(), lazy.key), variable.dims)

    @property
    def key(self) -> tuple[Any, ...]:
        """What is wanted of the array."""
        key: tuple[Any, ...] = self.lazy.key.tuple
        return key

    @property
    def name(self) -> str:
        """What tells it from others, as long as it is kept."""
        array = self.lazy.array
        told = [(key if isinstance(key, slice) else key.tolist()) for key in self.key]
        return f"{array.token} {id(array.origin or array):x} {told}"

    def size(self, dim: str) -> int:
        """Its length along a dimension."""
        axis = self.dims.index(dim)
        key = self.key[axis]
        return len(range(self.lazy.array.shape[axis])[key]) if isinstance(key, slice) else len(key)

    def cut(self, dim: str, part: slice) -> Unread:
        """A part along a dimension."""
        key, axis = list(self.key), self.dims.index(dim)
        at, length = key[axis], self.lazy.array.shape[axis]
        key[axis] = _as_slice(range(length)[at][part]) if isinstance(at, slice) else at[part]
        cut = LazyArray(self.lazy.array, type(self.lazy.key)(tuple(key)))
        return Unread(cut, self.dims)

    def read(self) -> np.ndarray:
        """Read it now."""
        found: np.ndarray = self.lazy.array.read(self.key)
        return found


def _as_slice(chosen: range) -> slice:
    return slice(chosen.start, chosen.stop if chosen.stop >= 0 else None, chosen.step)


@dataclass(frozen=True)
class Source:
    """What is read of some variables; of several questions the same is read once.

    Parameters
    ----------
    reading
        Called with an `Unread` of each variable, in parts.
    """

    reading: Callable[..., np.ndarray]
    unread: tuple[Unread, ...]

    def name(self) -> str:
        """Of its tasks."""
        told = [self.reading.__name__, *(one.name for one in self.unread)]
        return PREFIX + hashlib.sha256("\n".join(told).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Parts:
    """How answers are cut: places of one of their dimensions."""

    sizes: Mapping[str, int]
    dim: str
    width: int

    @property
    def starts(self) -> range:
        """Where parts begin."""
        return range(0, self.sizes[self.dim], self.width)

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Of the arrays, as dask has them."""
        length = self.sizes[self.dim]
        cut = tuple(min(self.width, length - start) for start in self.starts)
        return tuple(cut if dim == self.dim else (size,) for dim, size in self.sizes.items())

    def place(self, number: int) -> tuple[int, ...]:
        """Of a part in the grid of chunks."""
        return tuple(number if dim == self.dim else 0 for dim in self.sizes)


def in_parts(
    kernel: Callable[..., Sequence[np.ndarray]],
    sources: Sequence[Source],
    made: Mapping[str, Any],
    parts: Parts,
) -> dict[str, Any]:
    """Dask arrays of what a kernel makes of sources, part by part.

    Parameters
    ----------
    kernel
        Called with the array of each source; gives an array for each of `made`.
    made
        Dtypes by name.
    """
    from dask._task_spec import Task, TaskRef
    from dask.array import Array
    from dask.highlevelgraph import HighLevelGraph

    read, whole = [source.name() for source in sources], PREFIX + uuid4().hex
    names = {name: f"{whole}-{name}" for name in made}
    layers: dict[str, dict[Any, Any]] = {name: {} for name in (*read, whole, *names.values())}
    for number, start in enumerate(parts.starts):
        some = slice(start, start + parts.width)
        for name, source in zip(read, sources, strict=True):
            cut = [one.cut(parts.dim, some) for one in source.unread]
            layers[name][name, number] = Task((name, number), source.reading, *cut)
        given = [TaskRef((name, number)) for name in read]
        layers[whole][whole, number] = Task((whole, number), kernel, *given)
        for at, name in enumerate(names.values()):
            key = (name, *parts.place(number))
            layers[name][key] = Task(key, getitem, TaskRef((whole, number)), at)
    needs = {**{name: set[str]() for name in read}, whole: set(read)}
    graph = HighLevelGraph(layers, {**needs, **{name: {whole} for name in names.values()}})
    none, chunks = (0,) * len(parts.sizes), parts.chunks
    return {
        name: Array(graph, names[name], chunks, meta=np.empty(none, dtype))  # type: ignore[no-untyped-call]
        for name, dtype in made.items()
    }


def computed(arrays: Answer) -> Answer:
    """Arrays computed together, others as they are.

    Where all of them were made by `in_parts` dask is given one collection: it takes longer to
    look at many than to call their tasks.
    """
    import dask
    from dask.array import Array

    lazy = [a for some in arrays.values() for a in some.values() if isinstance(a, Array)]
    if not lazy or not all(name.startswith(PREFIX) for a in lazy for name in a.dask.layers):
        return cast(Answer, dask.compute(arrays)[0])  # type: ignore[no-untyped-call,attr-defined]
    (found,) = dask.compute(_Together(lazy), optimize_graph=False)  # type: ignore[no-untyped-call,attr-defined]
    values = iter(found)
    return {
        key: {name: next(values) if isinstance(a, Array) else a for name, a in some.items()}
        for key, some in arrays.items()
    }


class _Together:
    """Arrays as one collection of dask: no tasks take apart what others made, that is done here."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        self._arrays = arrays
        self._graph: dict[Any, Any] = {}
        for layers in {id(one.dask): one.dask for one in arrays}.values():
            for layer in layers.layers.values():
                self._graph.update(layer)
        self._keys = [one.__dask_keys__() for one in arrays]
        self._taken = {key: self._graph[key].args for keys in self._keys for key in _flat(keys)}
        for key in self._taken:
            del self._graph[key]

    def __dask_graph__(self) -> dict[Any, Any]:
        return self._graph

    def __dask_keys__(self) -> list[Any]:
        return [[self._taken[key][0].key for key in _flat(keys)] for keys in self._keys]

    def __dask_postcompute__(self) -> tuple[Any, tuple[Any, ...]]:
        joins = [one.__dask_postcompute__()[0] for one in self._arrays]
        return self._joined, (joins,)

    def _joined(self, parts: Sequence[Any], joins: Sequence[Callable[[Any], Any]]) -> list[Any]:
        found = []
        for keys, made, join in zip(self._keys, parts, joins, strict=True):
            values = (one[self._taken[key][1]] for key, one in zip(_flat(keys), made, strict=True))
            found.append(join(_like(keys, values)))
        return found

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return tuple(one.name for one in self._arrays)

    @property
    def __dask_scheduler__(self) -> Any:
        return self._arrays[0].__dask_scheduler__


def _flat(keys: Any) -> Iterator[Any]:
    """Keys of the blocks of an array, in order."""
    if not isinstance(keys, list):
        yield keys
        return
    for some in keys:
        yield from _flat(some)


def _like(keys: Any, values: Iterator[Any]) -> Any:
    """Values in lists as the keys are."""
    return [_like(some, values) for some in keys] if isinstance(keys, list) else next(values)
