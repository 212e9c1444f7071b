"""The store of format 1 that is kept for ever."""

from __future__ import annotations

import tarfile
from pathlib import Path

ARCHIVE = Path(__file__).parents[1] / "data" / "format1.tar.gz"


def unpack(folder: Path) -> Path:
    """Unpack it into a folder; its path."""
    # Python before 3.11.4 has no filters, Python from 3.12 on asks for one.
    ways = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, **ways)  # type: ignore[arg-type]
    return folder / "format1.zarr"
