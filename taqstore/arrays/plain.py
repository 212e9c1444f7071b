"""Groups without xarray: labels, attributes and arrays under the names that Datasets have.

Importing xarray takes longer than answering what a few labels tell. What works on a group and uses
no more than stands here takes either.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, overload

import numpy as np

from taqstore.arrays.selection import as_slice

if TYPE_CHECKING:
    from taqstore.arrays.store_array import ArrayReader

_WHOLE = slice(None)


@dataclass(frozen=True)
class LongText:
    """Text in several files, of which no index is made: decoded when it is used."""

    decode: Callable[[], np.ndarray[Any, Any]]
    shape: tuple[int, ...]
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(object))

    def read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        """What is chosen of it."""
        found: np.ndarray[Any, Any] = self.decode()[key]
        return found


@dataclass(frozen=True)
class PlainArray:
    """One variable of a group: values, or an array of a store that is read when it is used.

    Parameters
    ----------
    dims
        Names of its dimensions.
    source
        What it is cut from.
    key
        For each axis of it positions, or all of it.
    attrs
        Its attributes.
    """

    dims: tuple[str, ...]
    source: np.ndarray[Any, Any] | ArrayReader | LongText
    key: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, dims: tuple[str, ...], source: Any, attrs: Mapping[str, Any]) -> PlainArray:
        """All of an array."""
        return cls(dims, source, (_WHOLE,) * len(dims), attrs)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        found: np.dtype[Any] = self.source.dtype
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension."""
        return tuple(
            length if isinstance(key, slice) else len(key)
            for key, length in zip(self.key, self.source.shape, strict=True)
        )

    @property
    def size(self) -> int:
        """How many elements."""
        return prod(self.shape)

    @cached_property
    def values(self) -> np.ndarray[Any, Any]:
        """Its elements, read once."""
        keys = tuple(key if isinstance(key, slice) else as_slice(key) for key in self.key)
        if not isinstance(self.source, np.ndarray):
            return np.asarray(self.source.read(keys))
        found = self.source
        for axis, key in enumerate(keys):
            found = found[(_WHOLE,) * axis + (key,)]
        return found

    def isel(self, **chosen: Any) -> PlainArray:
        """Slices or positions along some dimensions; others than its own are passed over."""
        keys = list(self.key)
        for axis, (dim, length) in enumerate(zip(self.dims, self.source.shape, strict=True)):
            if dim in chosen:
                keys[axis] = np.arange(length)[keys[axis]][chosen[dim]]
        return PlainArray(self.dims, self.source, tuple(keys), self.attrs)

    def transpose(self, *dims: str) -> PlainArray:
        """Its values with the axes in another order."""
        order = [self.dims.index(dim) for dim in dims]
        return PlainArray.of(dims, self.values.transpose(order), self.attrs)


@dataclass(frozen=True)
class PlainGroup:
    """A group: variables by name, in their order.

    Parameters
    ----------
    data_vars, coords
        Its data and its labels.
    attrs
        Its attributes.
    order
        Dimensions that come before others in `sizes`.
    """

    data_vars: Mapping[str, PlainArray] = field(default_factory=dict)
    coords: Mapping[str, PlainArray] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @property
    def variables(self) -> Mapping[str, PlainArray]:
        """Data and labels."""
        return {**self.data_vars, **self.coords}

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension."""
        every = self.variables.values()
        found = {d: n for one in every for d, n in zip(one.dims, one.shape, strict=True)}
        return {dim: found[dim] for dim in (*self.order, *found)} if self.order else found

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(self.sizes)

    def __contains__(self, name: Hashable) -> bool:
        return name in self.data_vars or name in self.coords

    @overload
    def __getitem__(self, name: str) -> PlainArray: ...
    @overload
    def __getitem__(self, name: list[str]) -> PlainGroup: ...
    def __getitem__(self, name: str | list[str]) -> PlainArray | PlainGroup:
        if isinstance(name, list):
            return self._of(name)
        return self.data_vars[name] if name in self.data_vars else self.coords[name]

    def _of(self, names: list[str]) -> PlainGroup:
        """Some variables, with the labels of their dimensions."""
        dims = tuple(dict.fromkeys(dim for name in names for dim in self[name].dims))
        labels = [name for name, one in self.coords.items() if set(one.dims) <= set(dims)]
        chosen = dict.fromkeys([name for name in names if name in self.coords] + labels)
        data = {name: self.data_vars[name] for name in names if name in self.data_vars}
        return PlainGroup(data, {name: self.coords[name] for name in chosen}, self.attrs, dims)

    def compute(self) -> PlainGroup:
        """Itself: what is used of it is read then, and kept."""
        return self

    def isel(self, chosen: Mapping[str, Any] | None = None, /, **named: Any) -> PlainGroup:
        """Slices or positions along some dimensions."""
        keys = {**(chosen or {}), **named}
        data = {name: one.isel(**keys) for name, one in self.data_vars.items()}
        coords = {name: one.isel(**keys) for name, one in self.coords.items()}
        return PlainGroup(data, coords, self.attrs, self.order)

    def drop_vars(self, name: str) -> PlainGroup:
        """Without one variable."""
        return self._where(lambda key, _: key != name)

    def drop_dims(self, dim: str) -> PlainGroup:
        """Without the variables that have a dimension."""
        return self._where(lambda _, one: dim not in one.dims)

    def _where(self, kept: Callable[[str, PlainArray], bool]) -> PlainGroup:
        data = {key: one for key, one in self.data_vars.items() if kept(key, one)}
        coords = {key: one for key, one in self.coords.items() if kept(key, one)}
        return PlainGroup(data, coords, self.attrs)

    def assign(self, variables: Mapping[str, PlainArray]) -> PlainGroup:
        """With some data."""
        return PlainGroup({**self.data_vars, **variables}, self.coords, self.attrs)

    def assign_attrs(self, attrs: Mapping[str, Any]) -> PlainGroup:
        """With some attributes."""
        return replace(self, attrs={**self.attrs, **attrs})


class Opens(Protocol):
    """A store that opens its groups without xarray."""

    def plain(self, path: str) -> PlainGroup:
        """One of them."""

    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, path: object) -> bool: ...


class PlainGroups(Mapping[str, PlainGroup]):
    """Groups of a store without xarray, each opened once."""

    def __init__(self, store: Opens) -> None:
        self._store, self._found = store, dict[str, PlainGroup]()

    def __getitem__(self, path: str) -> PlainGroup:
        name = path.strip("/")
        if name not in self._found:
            self._found[name] = self._store.plain(name)
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, path: object) -> bool:
        return path in self._store
