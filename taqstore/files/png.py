"""Pictures as PNG files: read, written, or many on a contact sheet with what they show."""

from __future__ import annotations

import struct
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem
from taqstore.files.staged import whole_file

if TYPE_CHECKING:
    from PIL import Image

# Signature, length and name of the first chunk; then width, height, depth and kind of colour.
_HEAD = struct.Struct(">8sI4sIIBB")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
_KINDS = {1: 0, 2: 4, 3: 2, 4: 6}
LARGEST = 1 << 26
"""Pixels of the largest picture that is read: 8192 x 8192."""

_GAP, _LINE, _LETTER = 4, 12, 6
_LINES = 3
_LARGEST = 256


def picture_shape(path: Path) -> tuple[int, int, int]:
    """Height, width and colours of a PNG file, by its header and palette; no pixel is read.

    Raises
    ------
    SourceError
        It is no PNG, of more than `LARGEST` pixels, or has 16 bits a colour.
    """
    with _opened(path) as image:
        return image.height, image.width, _COLOURS[_mode(image)]


def read_picture(path: Path) -> np.ndarray:
    """Pixels of a PNG file, uint8 ``(height, width, colour)``; palettes are looked up.

    Raises
    ------
    SourceError
        As of `picture_shape`, or its pixels are cut short or damaged.
    """
    with _opened(path) as image:
        try:
            image.load()
            found = np.asarray(image.convert(_mode(image)))
        except (OSError, SyntaxError, ValueError, zlib.error) as error:
            raise SourceError(problem("damaged PNG", where=str(path), found=str(error))) from error
    return found.reshape(*found.shape[:2], -1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file as Pillow sees it, once its size is known to be one that may be decoded."""
    from PIL import Image

    _check_header(path)
    try:
        image = Image.open(path, formats=("PNG",))
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise SourceError(problem("damaged PNG", where=str(path), found=str(error))) from error
    with image:
        yield image


def _check_header(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD.size)
    except OSError as error:
        what = error.strerror or str(error)
        raise SourceError(problem("cannot be read", where=str(path), found=what)) from error
    if len(head) < _HEAD.size or not head.startswith(_SIGNATURE):
        raise SourceError(problem("no PNG file", where=str(path)))
    _, _, _, width, height, depth, _ = _HEAD.unpack(head)
    if not 0 < width * height <= LARGEST:
        found = f"{width} x {height} pixels"
        what = f"a picture of none or more than {LARGEST} pixels"
        raise SourceError(problem(what, where=str(path), found=found))
    if depth > 8:
        what = "more than 8 bits a colour"
        raise SourceError(problem(what, where=str(path), found=str(depth)))


def _mode(image: Image.Image) -> str:
    """Kind of pixels that hold what a PNG has, a byte a colour."""
    if image.mode in _COLOURS:
        return image.mode
    if image.mode == "P":
        return "RGBA" if "transparency" in image.info else "RGB"
    return "L"


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write a picture uint8 ``(height, width[, colour])``; what was there is replaced."""
    from PIL import Image

    grey = picture.ndim == 3 and picture.shape[2] == 1
    _save(Image.fromarray(picture[..., 0] if grey else picture), path)


def png_bytes(picture: np.ndarray) -> bytes:
    """A picture uint8 ``(height, width, colour)`` of 1 to 4 colours as a PNG, without Pillow."""
    height, width, colours = picture.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _KINDS[colours], 0, 0, 0)
    # Before each row a byte says that it is as it is: deflate does well enough on small pictures.
    rows = np.zeros((height, 1 + width * colours), np.uint8)
    rows[:, 1:] = picture.reshape(height, -1)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def contact_sheet(
    rows: Sequence[np.ndarray],
    path: Path,
    *,
    captions: Sequence[Sequence[str]],
    labels: Sequence[str] = (),
    smallest: int = 64,
) -> None:
    """Write rows of pictures as one PNG; what was there is replaced.

    Parameters
    ----------
    rows
        uint8 ``(column, height, width[, 3])`` each, all of one size; enlarged by whole numbers, or
        shrunk, to sides between `smallest` and 256 pixels.
    captions
        For each row the texts above its pictures, in at most three lines; or none.
    labels
        Text at the left of each row.
    """
    from PIL import Image, ImageDraw

    size = width, height = _size(rows[0].shape[1:3], smallest)
    left = _GAP + max((len(text) * _LETTER + _GAP for text in labels), default=0)
    wrapped = [[textwrap.wrap(t, width // _LETTER)[:_LINES] for t in texts] for texts in captions]
    heads = [_GAP + _LINE * max(map(len, lines), default=0) for lines in wrapped]
    *tops, bottom = accumulate((head + height for head in heads), initial=0)
    right = left + max(map(len, rows)) * (width + _GAP)
    sheet = Image.new("L" if rows[0].ndim == 3 else "RGB", (right, bottom + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (pictures, texts) in enumerate(zip(rows, wrapped, strict=True)):
        top = tops[number] + heads[number]
        if labels:
            draw.text((_GAP, top + (height - _LINE) // 2), labels[number], fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(_resized(picture, size), (left + column * (width + _GAP), top))
        for column, lines in enumerate(texts):
            place = left + column * (width + _GAP), tops[number] + 1
            draw.multiline_text(place, "\n".join(lines), fill="black", spacing=1)
    _save(sheet, path)


def _size(shape: tuple[int, ...], smallest: int) -> tuple[int, int]:
    """Width and height that pictures are drawn with."""
    height, width = shape
    larger = -(-smallest // min(height, width))
    if larger > 1:
        return width * larger, height * larger
    smaller = max(1.0, max(height, width) / _LARGEST)
    return round(width / smaller), round(height / smaller)


def _resized(picture: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Pixels stay squares where they are enlarged, and are averaged where they are not."""
    from PIL import Image

    found = Image.fromarray(picture)
    enlarged = found.width <= size[0]
    return found.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def _save(image: Image.Image, path: Path) -> None:
    with whole_file(path, force=True) as fresh:
        image.save(fresh, "PNG")
