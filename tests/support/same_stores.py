"""Stores compared array by array and byte by byte, read without our reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from taqstore.place.location import Location

PROVENANCE = "provenance"
_RECORDS = ("items/record", "items/commit")
# Which store it is, and checksums over that.
_OWN = ("store", "seal")


def _members(path: Path) -> dict[str, Any]:
    """Groups and arrays of a local store by path, without the log of runs."""
    # Through our own listing: zarr warns of nodes that a killed writer left without metadata.
    root = Location.parse(path).root(mode="r", consolidated=False)
    found = dict(root.members(max_depth=None))
    return {name: node for name, node in found.items() if not name.startswith(PROVENANCE)}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = {k: v for k, v in _members(path).items() if isinstance(v, zarr.Array)}
    return {name: np.asarray(array[...]) for name, array in arrays.items()}


def raw_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a local store, coordinates and closed flags too; not the items' records."""
    return {name: values for name, values in _arrays(path).items() if "/items/" not in name}


def group_attributes(path: Path) -> dict[str, dict[str, Any]]:
    """Attributes of every group, without what tells one store from another."""
    groups = {k: v for k, v in _members(path).items() if isinstance(v, zarr.Group)}
    found: dict[str, dict[str, Any]] = {name: dict(group.attrs) for name, group in groups.items()}
    for attributes in found.values():
        if marker := attributes.get("taqstore"):
            attributes["taqstore"] = {k: v for k, v in marker.items() if k not in _OWN}
            files = marker.get("files", {}).items()
            attributes["taqstore"]["files"] = {k: v for k, v in files if _RECORDS[0] not in k}
    return found


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
    """Equal groups, arrays, dtypes, shapes, bytes and records; returns how many were compared.

    Parameters
    ----------
    attributes
        Compare what groups say of themselves and of their files too.
    """
    left, right = _arrays(ours), _arrays(theirs)
    assert sorted(left) == sorted(right)
    for name, values in right.items():
        own = slice(None, -4 if name.endswith(_RECORDS) else None)  # a seal of the store's own
        assert_same_bits(left[name][..., own], values[..., own], name)
    if attributes:
        assert group_attributes(ours) == group_attributes(theirs)
    return len(left)
