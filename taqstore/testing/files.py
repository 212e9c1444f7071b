"""Small writers shared by the makers: the same input always gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Source files name folders of the machine they were made on; no reader may follow them.
FOREIGN = "/Users/somebody-else/calibration_data"


def save_npz(path: Path, arrays: Mapping[str, Any], *, compressed: bool = True) -> Path:
    """Write `arrays` as a `.npz`; NumPy stamps members with a fixed date, so bytes repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = np.savez_compressed if compressed else np.savez
    writer(path, **arrays)
    return path


def save_json(path: Path, document: Any, *, indent: int | None = 2) -> Path:
    """Write `document` the way the source scripts do: default separators, no final newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=indent), encoding="utf-8")
    return path
