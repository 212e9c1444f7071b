"""A data file in pieces: the same bytes, and nothing wrong gets to the last of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from taqstore.errors import StoreError
from taqstore.layout import checked_pieces as module
from taqstore.layout.checked_pieces import checked_pieces
from taqstore.layout.item_records import Identity
from taqstore.layout.shards import Frames, fingerprint_of
from taqstore.place.local_backend import LocalBackend

KEY = "group/x/c/0"


def write(folder: Path, chunks: list[np.ndarray], capacity: int | None) -> bytes:
    LocalBackend(folder).write(KEY, Frames(chunks, capacity=capacity))
    return (folder / KEY).read_bytes()


def pieces(folder: Path, identity: Identity, capacity: int | None) -> list[bytes]:
    return list(checked_pieces(LocalBackend(folder), KEY, identity, capacity))


@pytest.mark.parametrize("piece", [5, 64, 333, 1 << 20])
@pytest.mark.parametrize(("lengths", "capacity"), [
    ([40] * 7, 7), ([40] * 3, 7), ([1, 300, 2, 80], 4), ([1000], None), ([0], None), ([], 3),
])  # fmt: skip
def test_pieces_are_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: Any, capacity: Any, piece: int
) -> None:
    rng = np.random.default_rng(1)
    chunks = [rng.integers(0, 256, n).astype(np.uint8) for n in lengths]
    raw = write(tmp_path, chunks, capacity)
    identity = len(raw), fingerprint_of(raw, capacity)
    monkeypatch.setattr(module, "PIECE", piece)
    found = pieces(tmp_path, identity, capacity)
    assert b"".join(found) == raw
    assert all(len(one) <= max(piece, 16 * (capacity or 0) + 4) for one in found)


@pytest.mark.parametrize("piece", [7, 1 << 20])
@pytest.mark.parametrize("capacity", [4, None])
def test_any_flipped_byte_is_found_before_the_last_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capacity: Any, piece: int
) -> None:
    monkeypatch.setattr(module, "PIECE", piece)
    chunks = [np.arange(9, dtype=np.uint8) + i for i in range(3 if capacity else 1)]
    raw = write(tmp_path, chunks, capacity)
    identity = len(raw), fingerprint_of(raw, capacity)
    for place in range(len(raw)):
        damaged = bytearray(raw)
        damaged[place] ^= 0x40
        (tmp_path / KEY).write_bytes(damaged)
        given = []
        with pytest.raises(StoreError, match=f"{KEY}: damaged shard"):
            given += list(checked_pieces(LocalBackend(tmp_path), KEY, identity, capacity))
        assert len(b"".join(given)) < len(raw)


def test_another_file_a_short_one_and_none(tmp_path: Path) -> None:
    raw = write(tmp_path, [np.arange(9, dtype=np.uint8)], 2)
    size, fingerprint = len(raw), fingerprint_of(raw, 2)
    with pytest.raises(StoreError, match="not the file that was written here"):
        pieces(tmp_path, (size, fingerprint ^ 1), 2)
    with pytest.raises(StoreError, match=f"{size} bytes of {size + 3}"):
        pieces(tmp_path, (size + 3, fingerprint), 2)
    (tmp_path / KEY).unlink()
    with pytest.raises(StoreError, match="missing, though its item is flagged"):
        pieces(tmp_path, (size, fingerprint), 2)


def test_an_index_may_not_name_a_byte_twice(tmp_path: Path) -> None:
    """Chunks that overlap would be told the same checksum by less than the file."""
    raw = write(tmp_path, [np.zeros(8, np.uint8), np.zeros(8, np.uint8)], 2)
    table = np.array([[0, 12], [0, 12]], "<u8").tobytes()
    from crc32c import crc32c

    forged = raw[:24] + table + int(crc32c(table)).to_bytes(4, "little")
    (tmp_path / KEY).write_bytes(forged)
    with pytest.raises(StoreError, match="leads outside"):
        pieces(tmp_path, (len(forged), fingerprint_of(forged, 2)), 2)
