"""Pictures are read pixel for pixel, and what a file claims is judged before it is decoded."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taqstore.errors import SourceError
from taqstore.files.png import LARGEST, picture_shape, read_picture, save_picture


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head)


@pytest.mark.parametrize("colours", [1, 2, 3, 4])
def test_pixels_come_back(tmp_path: Path, colours: int) -> None:
    rng = np.random.default_rng(colours)
    pixels = rng.integers(0, 256, (7, 5, colours), np.uint8)
    save_picture(pixels, tmp_path / "p.png")
    assert picture_shape(tmp_path / "p.png") == (7, 5, colours)
    assert np.array_equal(read_picture(tmp_path / "p.png"), pixels)


def test_grey_without_an_axis_is_grey(tmp_path: Path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    save_picture(pixels, tmp_path / "p.png")
    assert np.array_equal(read_picture(tmp_path / "p.png")[..., 0], pixels)


def test_palettes_are_looked_up(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[1:, 2:] = (10, 200, 30)
    Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.png")
    assert picture_shape(tmp_path / "p.png") == (4, 6, 3)
    assert np.array_equal(read_picture(tmp_path / "p.png"), pixels)


def broken(tmp_path: Path) -> dict[str, bytes]:
    save_picture(np.full((40, 30, 3), 9, np.uint8), tmp_path / "good.png")
    good = (tmp_path / "good.png").read_bytes()
    flipped = bytearray(good)
    flipped[-20] ^= 0x40
    side = int(LARGEST**0.5) + 1
    return {
        "empty": b"",
        "text": b"not a picture at all, but long enough to hold a header",
        "cut in the header": good[:20],
        "cut in the pixels": good[:-30],
        "flipped": bytes(flipped),
        "too large": header(side, side) + chunk(b"IEND", b""),
        "of no pixels": header(0, 5) + chunk(b"IEND", b""),
        "16 bits": header(2, 2, 16) + chunk(b"IDAT", zlib.compress(bytes(26))),
        "no pixels": header(4, 4) + chunk(b"IEND", b""),
        "text bomb": header(1, 1)
        + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 27)))
        + chunk(b"IDAT", zlib.compress(bytes(4)))
        + chunk(b"IEND", b""),
    }  # fmt: skip


BROKEN = (
    *("empty", "text", "cut in the header", "cut in the pixels", "flipped", "too large"),
    *("of no pixels", "16 bits", "no pixels", "text bomb"),
)


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.png"
    files = broken(tmp_path)
    assert sorted(files) == sorted(BROKEN)
    path.write_bytes(files[what])
    with pytest.raises(SourceError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        picture_shape(tmp_path / "none.png")
