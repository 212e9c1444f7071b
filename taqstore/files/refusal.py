"""What is wrong with a source, in one line that always ends in a remedy.

What a file is that is not what was expected is told by its first bytes; nothing of it is believed.
"""

from __future__ import annotations

import stat
from pathlib import Path

from taqstore import errors

_HEAD = 1024
# First bytes -> what it is and what to do with it.
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a pointer of Git LFS: git lfs pull fetches the file itself"),
    (b"\x1f\x8b", "gzip: unpack it first"),
    (b"BZh", "bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "xz: unpack it first"),
    (b"(\xb5/\xfd", "zstd: unpack it first"),
    (b"7z\xbc\xaf", "7-zip: unpack it first"),
    (b"\x93NUMPY", "a .npy array"),
    (b"\x89HDF", "HDF5"),
    (b"CDF", "NetCDF"),
    (b"PAR1", "Parquet"),
    (b"GGUF", "GGUF"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
)
_PAGES = (b"<!doctype", b"<html", b"<?xml")
MEND = "write it again or remove it, then run again with --resume"


def problem(what: str, *, where: str = "", found: str = "", remedy: str = MEND) -> str:
    """As `taqstore.errors.problem`, with the remedy that fits most defects of a file."""
    return errors.problem(what, where=where, found=found, remedy=remedy)


def what_it_is(path: Path) -> str:
    """A few words on a file of another kind; empty where it cannot be told."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return "a folder"
        if not stat.S_ISREG(status.st_mode):
            return "no regular file"
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    return _told(head)


def _told(head: bytes) -> str:
    if not head:
        return "an empty file"
    for start, words in _KINDS:
        if head.startswith(start):
            return words
    if head.startswith(b"PK"):
        return _archive(head)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a pickle, which is never loaded: save it as safetensors or npz"
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith(_PAGES):
        return "a web page: the download was an error or needs a login"
    if begin[:1] in (b"{", b"["):
        return "JSON"
    if _is_safetensors(head):
        return "safetensors"
    return "zeros: an unfinished download" if not head.strip(b"\0") else ""


def _archive(head: bytes) -> str:
    if b"/data.pkl" in head or b"archive/" in head:
        return "a PyTorch checkpoint, which is never loaded: save it as safetensors"
    return "npz" if b".npy" in head else "a zip archive: unpack it first"


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 1 << 32
