"""Stores compared array by array and byte by byte, read without our reader."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr

PROVENANCE = "provenance"
_RECORDS = ("items/record", "items/commit")
# Which store it is, and checksums over that.
_OWN = ("store", "seal")


def _nodes(path: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Documents of all groups, or arrays, below a local store by path; not the log of runs.

    zarr's own listing takes longer than all else that is compared, and warns of nodes that a
    killed writer left without metadata.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder, folders, files in os.walk(path):
        if "zarr.json" not in files:
            continue
        name = Path(folder).relative_to(path).as_posix()
        document = json.loads(Path(folder, "zarr.json").read_bytes())
        if document["node_type"] == "array":
            folders.clear()
        if document["node_type"] == kind and name != "." and not name.startswith(PROVENANCE):
            found[name] = document
    return found


def _values(path: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(path / name, mode="r")[...])


def _bytes(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def raw_arrays(path: Path) -> dict[str, np.ndarray]:
    """Every array of a local store, coordinates and closed flags too; not the items' records."""
    names = [name for name in _nodes(path, "array") if "/items/" not in name]
    return {name: _values(path, name) for name in names}


def group_attributes(path: Path) -> dict[str, dict[str, Any]]:
    """Attributes of every group, without what tells one store from another."""
    found: dict[str, dict[str, Any]] = {
        name: dict(document.get("attributes", {}))
        for name, document in _nodes(path, "group").items()
    }
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
    left, right = _nodes(ours, "array"), _nodes(theirs, "array")
    assert sorted(left) == sorted(right)
    for name in right:
        if _bytes(ours / name) == _bytes(theirs / name):
            continue  # equal documents and chunks hold equal values
        own = slice(None, -4 if name.endswith(_RECORDS) else None)  # a seal of the store's own
        found, expected = _values(ours, name), _values(theirs, name)
        assert_same_bits(found[..., own], expected[..., own], name)
    if attributes:
        assert group_attributes(ours) == group_attributes(theirs)
    return len(left)
