"""Small files of a group with few requests: several of them in the place of one.

`items/coordinates` holds the files of all coordinates, and closed records tell the flags that
`written` repeats. What comes out of either is compared with the group's record like any file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from taqstore.errors import StoreError
from taqstore.items.copies import COPY_CHUNK
from taqstore.layout.packed import unpacked
from taqstore.metadata.group_record import GroupRecord
from taqstore.metadata.tree import every_file
from taqstore.names import COPIES, ITEMS, RECORD, WRITTEN
from taqstore.place.backend import Backend

# Closed records that are read with a group: a file of them holds the records of 2,000 items.
_MOST_RECORD_BYTES = 256 << 10


def few_files(backend: Backend, path: str, record: GroupRecord) -> Mapping[str, bytes | None]:
    """Coordinates and flags of a group, by key below it; a `ReadFiles` of `load_group`."""
    if record.coming != ({}, {}):
        return every_file(backend, path, record)  # either may lie there: each is looked at
    labels = [key for key in record.files if not key.startswith((f"{ITEMS}/", f"{WRITTEN}/"))]
    flags = _below(record, WRITTEN)
    copies, records = _below(record, COPIES), _below(record, RECORD)
    copied = 0 < len(copies) < len(labels)
    small = 0 < len(records) <= len(flags)
    small = small and sum(record.files[key][0] for key in records) <= _MOST_RECORD_BYTES
    asked = [*(copies if copied else labels), *(records if small else flags)]
    there = _read(backend, path, record, asked)
    found = _unpacked(record, [there.get(key) for key in sorted(copies, key=_number)])
    found |= {key: raw for key, raw in there.items() if key not in copies}
    # A copy, or a file of records, that is damaged says nothing of the files themselves.
    missing = [key for key in labels if key not in found]
    if not small or any(key not in there for key in records):
        missing += [key for key in flags if key not in found]
    return {**found, **_raws(backend, path, missing)}


def _below(record: GroupRecord, prefix: str) -> list[str]:
    return [key for key in record.files if key.startswith(f"{prefix}/c")]


def _number(key: str) -> int:
    number = key.rpartition("/")[2]
    return int(number) if number.isdecimal() and len(number) < 10 else 0


def _raws(backend: Backend, path: str, keys: Sequence[str]) -> dict[str, bytes | None]:
    raws = backend.read_many(f"{path}/{key}" for key in keys)
    return {key: raws[f"{path}/{key}"] for key in keys}


def _read(
    backend: Backend, path: str, record: GroupRecord, keys: Sequence[str]
) -> dict[str, bytes]:
    """Those of some files that are there and are what was written."""
    raws = _raws(backend, path, keys).items()
    return {key: raw for key, raw in raws if raw is not None and record.fits_file(key, raw)}


def _unpacked(record: GroupRecord, chunks: Iterable[bytes | None]) -> dict[str, bytes]:
    """Files that a copy holds and that are those of the record."""
    try:
        parts = [unpacked(raw or b"", np.uint8, (COPY_CHUNK,), COPIES) for raw in chunks]
        text = b"".join(part.tobytes() for part in parts).rstrip(b"\0")
        held = {key: base64.b64decode(raw) for key, raw in json.loads(text or b"{}").items()}
    except (StoreError, ValueError, AttributeError, TypeError, RecursionError):
        return {}
    return {
        key: raw for key, raw in held.items() if key in record.files and record.fits_file(key, raw)
    }
