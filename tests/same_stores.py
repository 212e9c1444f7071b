"""Stores compared array by array and byte by byte, read with zarr alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

PROVENANCE = "provenance"


def raw_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a local store, coordinates and masks too, without the log of runs."""
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    found: dict[str, Any] = dict(root.members(max_depth=None))
    arrays = {k: v for k, v in found.items() if isinstance(v, zarr.Array)}
    return {k: np.asarray(v[...]) for k, v in arrays.items() if not k.startswith(PROVENANCE)}


def group_attributes(path: Path) -> dict[str, dict[str, Any]]:
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    groups = {k: v for k, v in root.groups() if k != PROVENANCE}
    nested = {f"{k}/{name}": v for k, g in groups.items() for name, v in g.members(max_depth=None)}
    every = {**groups, **nested}
    return {k: dict(v.attrs) for k, v in every.items() if isinstance(v, zarr.Group)}


def as_bytes(values: np.ndarray) -> bytes:
    """Bytes of an array; strings in a form that cannot run together."""
    if values.dtype.kind in "OTU":
        return repr(values.tolist()).encode()
    return np.ascontiguousarray(values).tobytes()


def assert_same_bits(ours: Any, theirs: Any, name: object = "") -> None:
    left, right = np.asarray(ours), np.asarray(theirs)
    assert (left.dtype, left.shape) == (right.dtype, right.shape), name
    assert as_bytes(left) == as_bytes(right), name


def assert_same_stores(ours: Path, theirs: Path, *, attributes: bool = True) -> int:
    """Equal groups, arrays, dtypes, shapes and bytes; returns how many arrays were compared."""
    left, right = raw_arrays(ours), raw_arrays(theirs)
    assert sorted(left) == sorted(right)
    for name, values in right.items():
        assert_same_bits(left[name], values, name)
    if attributes:
        assert group_attributes(ours) == group_attributes(theirs)
    return len(left)
