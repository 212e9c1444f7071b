"""xarray, where no array is one of dask's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xarray.namedarray import pycompat


@contextmanager
def without_dask() -> Iterator[None]:
    """Let xarray ask within whether arrays are dask's without importing `dask.array` to know.

    That takes a quarter of a second, more than many answers. Where dask is loaded, nothing is
    different; what comes to load it within is recognised once the end is reached.
    """
    known: dict[Any, Any] = getattr(pycompat, "_cached_duck_array_modules", {})
    if "dask.array" in sys.modules or "dask" in known:
        yield
        return
    known["dask"] = _Absent
    try:
        yield
    finally:
        known.pop("dask", None)


class _Absent:
    """What xarray keeps of a module that is not installed: see its `DuckArrayModule`."""

    module = None
    type: tuple[type[Any], ...] = ()
    available = False
