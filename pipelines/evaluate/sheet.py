"""Contact sheet of an evaluation: a row of pictures for every variant, its name beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_GAP, _LINE, _LETTER = 4, 12, 6
_LINES = 3
_SMALLEST, _LARGEST = 64, 256


def comparison_sheet(
    pictures: np.ndarray, rows: Sequence[str], columns: Sequence[str], fresh: Path
) -> None:
    """Write pictures as a PNG, one row for each of `rows`.

    Parameters
    ----------
    pictures
        uint8 (row, column, height, width[, 3]); enlarged by whole numbers, or shrunk, to sides
        between 64 and 256 pixels.
    rows, columns
        Texts at the left of each row, and above each column in at most three lines.
    """
    from PIL import Image, ImageDraw

    height, width = _size(pictures.shape[2:4])
    left = _GAP + max(map(len, rows)) * _LETTER + _GAP
    captions = [textwrap.wrap(text, width // _LETTER)[:_LINES] for text in columns]
    head = _GAP + _LINE * max(map(len, captions))
    size = left + len(columns) * (width + _GAP), head + len(rows) * (height + _GAP) + _GAP
    sheet = Image.new("L" if pictures.ndim == 4 else "RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(captions):
        place = left + column * (width + _GAP), 1
        draw.multiline_text(place, "\n".join(lines), fill="black", spacing=1)
    for row, text in enumerate(rows):
        top = head + row * (height + _GAP)
        draw.text((_GAP, top + (height - _LINE) // 2), text, fill="black")
        for column in range(len(columns)):
            picture = Image.fromarray(pictures[row, column])
            resized = picture.resize((width, height), _filter(picture.size, (width, height)))
            sheet.paste(resized, (left + column * (width + _GAP), top))
    sheet.save(fresh)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape
    larger = -(-_SMALLEST // min(height, width))
    if larger > 1:
        return height * larger, width * larger
    smaller = max(1.0, max(height, width) / _LARGEST)
    return round(height / smaller), round(width / smaller)


def _filter(before: tuple[int, int], after: tuple[int, int]) -> int:
    """Pixels stay squares where they are enlarged, and are averaged where they are not."""
    from PIL import Image

    enlarged = before[0] <= after[0]
    return Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
