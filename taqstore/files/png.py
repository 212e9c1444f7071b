"""Pictures as PNG files: one, or many on a contact sheet with what they show beside them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from taqstore.files.staged import whole_file

if TYPE_CHECKING:
    from PIL import Image

_GAP, _LINE, _LETTER = 4, 12, 6
_LINES = 3
_LARGEST = 256


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Write a picture uint8 ``(height, width[, 3])``; what was there is replaced."""
    from PIL import Image

    _save(Image.fromarray(picture), path)


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
