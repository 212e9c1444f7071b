"""Text labels of many images, read when they are asked for and not when a group is opened."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing


class LazyText(BackendArray):
    """A text coordinate that is decoded on first use, as an object array of str.

    Parameters
    ----------
    read
        Decodes all of it.
    shape
        Of what it gives.
    """

    def __init__(self, read: Callable[[], np.ndarray], shape: tuple[int, ...]) -> None:
        self._decode, self.shape, self.dtype = read, shape, np.dtype(object)

    def __reduce__(self) -> tuple[Any, ...]:
        return _decoded, (self.values,)  # another process need not look at the store

    @cached_property
    def values(self) -> np.ndarray:
        """All labels."""
        return self._decode()

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._outer
        )

    def _outer(self, key: tuple[Any, ...]) -> np.ndarray:
        # Labels have one axis.
        return np.asarray(self.values[key[0]])


def _decoded(values: np.ndarray) -> LazyText:
    return LazyText(lambda: values, values.shape)
