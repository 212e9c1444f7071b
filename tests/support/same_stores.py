"""Stores compared array by array and byte by byte, read without our reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from taqstore.store.location import Location

PROVENANCE = "provenance"


def _members(path: Path) -> dict[str, Any]:
    """Groups and arrays of a local store by path, without the log of runs."""
    # Through our own listing: zarr warns of nodes that a killed writer left without metadata.
    root = Location.parse(path).root(mode="r", consolidated=False)
    found = dict(root.members(max_depth=None))
    return {name: node for name, node in found.items() if not name.startswith(PROVENANCE)}


def raw_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a local store, coordinates and masks too."""
    arrays = {k: v for k, v in _members(path).items() if isinstance(v, zarr.Array)}
    return {name: np.asarray(array[...]) for name, array in arrays.items()}


def group_attributes(path: Path) -> dict[str, dict[str, Any]]:
    groups = {k: v for k, v in _members(path).items() if isinstance(v, zarr.Group)}
    return {name: dict(group.attrs) for name, group in groups.items()}


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
