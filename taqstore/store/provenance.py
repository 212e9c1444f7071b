"""Who wrote what: append-only JSON records inside the store."""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.names import PROVENANCE

if TYPE_CHECKING:
    import zarr

_LIBRARIES = ("taqstore", "numpy", "zarr", "xarray")


def library_versions(names: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """Installed versions of the libraries that shaped a result, and of Python."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def make_record(
    command: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
    groups: Sequence[str],
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """One record as `provenance.schema.json` describes it; times are UTC."""
    return {
        "id": str(uuid.uuid4()),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "parameters": dict(parameters),
        "inputs": [dict(entry) for entry in inputs],
        "groups": list(groups),
        "versions": library_versions(),
        "counts": dict(counts),
    }


def append_record(root: zarr.Group, record: Mapping[str, Any]) -> None:
    """Append one record. The caller holds the store's metadata lock.

    Raises
    ------
    TaqError
        The record does not fit its schema.
    """
    from zarr.codecs import Crc32cCodec

    from taqstore.files.schema import validate

    validate("provenance", record)
    if PROVENANCE in root:
        array: Any = root[f"{PROVENANCE}/json"]
    else:
        array = root.create_array(
            f"{PROVENANCE}/json",
            shape=(0,),
            chunks=(1,),
            dtype="string",
            compressors=[Crc32cCodec()],
            dimension_names=("record",),
            attributes={"description": "append-only provenance records as JSON"},
        )
        root.require_group(PROVENANCE).attrs["taqstore"] = {"kind": PROVENANCE, "version": 1}
    count = array.shape[0]
    array.resize((count + 1,))
    array[count:] = np.array([json.dumps(record, sort_keys=True)], dtype=object)


def read_records(root: zarr.Group) -> list[dict[str, Any]]:
    """All finished records, oldest first."""
    if PROVENANCE not in root:
        return []
    texts = np.asarray(root[f"{PROVENANCE}/json"][:])  # type: ignore[index]
    return [json.loads(str(text)) for text in texts if str(text)]


def describe_input(path: Path) -> dict[str, Any]:
    """An input of a run: its name (never its folder), size and modification time."""
    if path.is_dir():
        return {"name": path.name, "kind": "folder"}
    stat = path.stat()
    modified = datetime.fromtimestamp(stat.st_mtime, UTC).isoformat(timespec="seconds")
    return {"name": path.name, "kind": "file", "bytes": stat.st_size, "modified": modified}
