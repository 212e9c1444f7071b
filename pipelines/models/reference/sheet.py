"""Contact sheet: many small pictures with their captions in one PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_ENLARGED = 3
_GAP = 8
_LINE = 12
_CHARACTERS = 18


def contact_sheet(
    pictures: NDArray[np.uint8], captions: Sequence[str], path: Path, *, columns: int = 10
) -> None:
    """Write pictures in rows, three times their size, each with its caption below.

    Parameters
    ----------
    pictures
        (N, H, W) levels of grey.
    """
    height, width = (side * _ENLARGED for side in pictures.shape[1:])
    tall = height + _GAP + _LINE * _lines(captions)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("L", (columns * (width + _GAP) + _GAP, rows * tall + _GAP), 255)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(index, columns)
        corner = _GAP + column * (width + _GAP), _GAP + row * tall
        sheet.paste(
            Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST), corner
        )
        below = corner[0], corner[1] + height + 2
        draw.multiline_text(below, "\n".join(_wrapped(caption)), fill=0, spacing=1)
    sheet.save(path)


def _lines(captions: Sequence[str]) -> int:
    return max((len(_wrapped(caption)) for caption in captions), default=0)


def _wrapped(caption: str) -> list[str]:
    return textwrap.wrap(caption, _CHARACTERS)
