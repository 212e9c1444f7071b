"""The directory of an npz file: what each member claims, bounded by what the file can hold."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from taqstore.errors import SourceError
from taqstore.files.refusal import problem, what_it_is

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
# Deflate cannot do better than 1032:1; the slack is for tiny members.
MAX_RATIO, SLACK = 1032, 64
AGAIN = "the writer was probably stopped: write it again or remove it"
_ENCRYPTED = 0x1
_UNREADABLE = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    OverflowError,
    NotImplementedError,
    EOFError,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an npz file, as its directory describes it (offsets and sizes in bytes)."""

    offset: int
    method: int
    compressed: int
    size: int
    crc: int


def read_directory(path: Path) -> tuple[int, dict[str, Member]]:
    """Size of the file and its members by key (`.npy` dropped), in file order.

    Raises
    ------
    SourceError
        Missing, truncated, half-written, no zip, or a member that is encrypted, of an unknown
        compression, listed twice, larger than its compressed bytes can give, or oddly named.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except OSError as error:
        found = what_it_is(path) if path.is_dir() else error.strerror or str(error)
        raise SourceError(problem("cannot be read", where=str(path), found=found)) from error
    except _UNREADABLE:
        found = what_it_is(path) or f"{size} bytes"
        raise SourceError(
            problem("not a complete npz file", where=str(path), found=found, remedy=AGAIN)
        ) from None
    members: dict[str, Member] = {}
    for info in infos:
        name = _key(path, info)
        if name in members:
            what = "key is in the file twice"
            raise SourceError(problem(what, where=f"{path}: {name}", remedy="write it again"))
        members[name] = _member(f"{path}: {name}", info, size)
    return size, members


def _key(path: Path, info: zipfile.ZipInfo) -> str:
    """Key of a member; never a path, so that nothing can be built from it."""
    name = info.filename.removesuffix(".npy")
    if name == info.filename or not name or any(s in name for s in ("/", "\\", "..")):
        raise SourceError(
            problem(
                f"member {info.filename!r} is not an array's name",
                where=str(path),
                found=what_it_is(path).removeprefix("npz"),
                remedy="write the file with np.savez and plain keys",
            )
        )
    return name


def _member(where: str, info: zipfile.ZipInfo, file_size: int) -> Member:
    if info.flag_bits & _ENCRYPTED or info.compress_type not in (STORED, DEFLATED):
        raise SourceError(
            problem(
                "encrypted, or of a compression other than deflate",
                where=where,
                remedy="save it with np.savez or np.savez_compressed",
            )
        )
    if not 0 <= info.header_offset < file_size:
        raise SourceError(problem("lies outside the file", where=where, remedy=AGAIN))
    limit = info.compress_size
    if info.compress_type == DEFLATED:
        limit = limit * MAX_RATIO + SLACK
    if info.compress_size > file_size or info.file_size > limit:
        raise SourceError(
            problem(
                f"claims {info.file_size} bytes",
                where=where,
                found=f"{info.compress_size} compressed bytes in a file of {file_size}",
                remedy="the file is damaged or hostile: remove it",
            )
        )
    return Member(
        info.header_offset, info.compress_type, info.compress_size, info.file_size, info.CRC
    )
