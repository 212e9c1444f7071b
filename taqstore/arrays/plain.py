"""Groups without xarray: labels, attributes and arrays under the names that Datasets have.

Importing xarray takes longer than answering what a few labels tell. What works on a group and uses
no more than stands here takes either.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.selection import as_slice

if TYPE_CHECKING:
    from taqstore.arrays.store_array import ArrayReader

_WHOLE = slice(None)


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
    source: np.ndarray[Any, Any] | ArrayReader
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
    """

    data_vars: Mapping[str, PlainArray] = field(default_factory=dict)
    coords: Mapping[str, PlainArray] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variables(self) -> Mapping[str, PlainArray]:
        """Data and labels."""
        return {**self.data_vars, **self.coords}

    @property
    def sizes(self) -> dict[str, int]:
        """Length of every dimension."""
        every = self.variables.values()
        return {d: n for one in every for d, n in zip(one.dims, one.shape, strict=True)}

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(self.sizes)

    def __contains__(self, name: Hashable) -> bool:
        return name in self.data_vars or name in self.coords

    def __getitem__(self, name: str) -> PlainArray:
        return self.data_vars[name] if name in self.data_vars else self.coords[name]

    def isel(self, **chosen: Any) -> PlainGroup:
        """Slices or positions along some dimensions."""
        data = {name: one.isel(**chosen) for name, one in self.data_vars.items()}
        coords = {name: one.isel(**chosen) for name, one in self.coords.items()}
        return PlainGroup(data, coords, self.attrs)

    def drop_vars(self, name: str) -> PlainGroup:
        """Without one variable."""
        data = {key: one for key, one in self.data_vars.items() if key != name}
        coords = {key: one for key, one in self.coords.items() if key != name}
        return PlainGroup(data, coords, self.attrs)
