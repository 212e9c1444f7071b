"""Break files on purpose, one defect at a time: what bad-input tests feed to readers."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.testing.files import save_npz

TERABYTES = 8 << 40


class Trap:
    """An object that leaves a file behind when it is unpickled.

    Parameters
    ----------
    marker
        The file. A reader that never unpickles never makes it.
    """

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.marker,)


def truncate(file: Path, *, keep: float = 0.5) -> Path:
    """Cut `file` to the first `keep` of its bytes, as a killed writer leaves it."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    return file


def flip_bit(file: Path, *, offset: int | None = None, member: str | None = None) -> Path:
    """Flip the lowest bit of one byte.

    Parameters
    ----------
    offset
        Which byte, negative from the end; by default the middle one.
    member
        Key of an `.npz`: the middle byte of its stored data instead.
    """
    data = bytearray(file.read_bytes())
    if member is not None:
        offset = _middle_of(file, member)
    data[len(data) // 2 if offset is None else offset] ^= 1
    file.write_bytes(data)
    return file


def _middle_of(file: Path, member: str) -> int:
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(f"{member}.npy")
    with file.open("rb") as stream:
        stream.seek(info.header_offset + 26)
        lengths = stream.read(4)
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    return info.header_offset + 30 + name + extra + info.compress_size // 2


def read_npz(file: Path) -> dict[str, NDArray[Any]]:
    """All members of an `.npz` without objects."""
    with np.load(file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def edit_npz(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Rewrite an `.npz` after `change` was applied to its members in place."""
    arrays: dict[str, Any] = read_npz(file)
    change(arrays)
    return save_npz(file, arrays)


def rename_key(file: Path, old: str, new: str) -> Path:
    """Rename a member; `new` may be any string, `../evil` too."""
    with zipfile.ZipFile(file) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            renamed = f"{new}.npy" if name == f"{old}.npy" else name
            archive.writestr(zipfile.ZipInfo(renamed), data, zipfile.ZIP_DEFLATED)
    return file


def drop_key(file: Path, key: str) -> Path:
    """Leave a member out."""
    return edit_npz(file, lambda arrays: arrays.__delitem__(key))


def replace_array(file: Path, key: str, value: Any) -> Path:
    """Put `value` (another shape, dtype, NaN, ...) where member `key` was."""
    return edit_npz(file, lambda arrays: arrays.__setitem__(key, value))


def poison(file: Path, key: str, *, value: float = float("nan"), index: int = 0) -> Path:
    """Set one element of a member to NaN or an infinity."""

    def change(arrays: dict[str, Any]) -> None:
        array = np.array(arrays[key])
        array.reshape(-1)[index] = value
        arrays[key] = array

    return edit_npz(file, change)


def pickled_npz(file: Path, *, key: str, marker: Path) -> Path:
    """Make member `key` an object array that touches `marker` if anyone unpickles it."""
    trapped = np.empty(1, dtype=object)
    trapped[0] = Trap(marker)
    return replace_array(file, key, trapped)


def claim_terabytes(file: Path, *, key: str) -> Path:
    """Make member `key` claim 8 TiB, in its array header and in the zip directory alike."""
    with zipfile.ZipFile(file) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    fields = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({TERABYTES // 8},), }}"
    header = fields.ljust(117).encode() + b"\n"
    lie = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            content = lie if name == f"{key}.npy" else data
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        archive.getinfo(f"{key}.npy").file_size = TERABYTES + len(lie) - 64
    return file


def edit_json(file: Path, change: Callable[[Any], None]) -> Path:
    """Rewrite a JSON document after `change` was applied to it in place."""
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document, indent=2), encoding="utf-8")
    return file


def drop_step(folder: Path, *, step: int, image: int = 0) -> Path:
    """Remove one latent of a run folder; returns the file that is gone."""
    file = folder / "samples" / f"{image:04d}_{step:03d}.npz"
    file.unlink()
    return file


def hole_in_manifest(folder: Path, *, image: int) -> Path:
    """Remove an image's row from `manifest.json`, so that list positions are off by one."""

    def change(document: Any) -> None:
        document["images"] = [row for row in document["images"] if row["image_id"] != image]

    return edit_json(folder / "manifest.json", change)


def duplicate_image(folder: Path, *, image: int, of: int = 0) -> Path:
    """Give image `image` the id of image `of` in `manifest.json`."""

    def change(document: Any) -> None:
        for row in document["images"]:
            row["image_id"] = of if row["image_id"] == image else row["image_id"]

    return edit_json(folder / "manifest.json", change)


def rotate_manifest(folder: Path) -> Path:
    """Move every row of `manifest.json` one place: prompts belong to ids, not to positions."""

    def change(document: Any) -> None:
        rows = document["images"]
        document["images"] = [*rows[1:], *rows[:1]]

    return edit_json(folder / "manifest.json", change)
