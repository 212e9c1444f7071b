"""Contact sheets show every picture, with its words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taqstore.files.png import contact_sheet, save_picture


@pytest.mark.parametrize(("side", "drawn"), [(8, 64), (64, 64), (100, 100), (512, 256)])
@pytest.mark.parametrize("colors", [(), (3,)])
def test_sheets_hold_every_picture(
    tmp_path: Path, side: int, drawn: int, colors: tuple[int, ...]
) -> None:
    """Each cell shows its picture: enlarged pixel by pixel, or shrunk, never moved."""
    shades = np.arange(1, 7, dtype=np.uint8).reshape(2, 3) * 30
    pictures = np.array(
        np.broadcast_to(shades.reshape(2, 3, 1, 1, *[1] * len(colors)), (2, 3, side, side, *colors))
    )
    contact_sheet(
        list(pictures),
        tmp_path / "s.png",
        captions=[["a", "b", "c"], []],
        labels=["one", "another"],
    )
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.mode == ("RGB" if colors else "L")
        values = np.array(sheet).reshape(*sheet.size[::-1], -1)[..., 0]
    for shade in shades.ravel():
        mask = values == shade  # letters have such pixels too, but no run of them
        assert [(mask.sum(axis) >= drawn).sum() for axis in (0, 1)] == [drawn, drawn]


def test_every_picture_has_its_caption_and_the_last_row_may_be_shorter(tmp_path: Path) -> None:
    pictures = np.arange(3, dtype=np.uint8)[:, None, None] * np.full((32, 32), 80, np.uint8)
    path = tmp_path / "sheet.png"
    path.write_bytes(b"what was there before")
    captions = [["a seven", "b"], ["a very long caption, bold, in lines"]]
    contact_sheet([pictures[:2], pictures[2:]], path, captions=captions, smallest=96)
    with Image.open(path) as sheet:
        grey = np.asarray(sheet)
    for shade, where in enumerate([(0, 0), (0, 1), (1, 0)]):
        mask = (grey == shade * 80).astype(int)
        rows, columns = (np.flatnonzero(mask.sum(axis) >= 96) for axis in (1, 0))
        rows = rows[(rows > grey.shape[0] // 2) == where[0]]
        columns = columns[(columns > grey.shape[1] // 2) == where[1]]
        assert len(rows) == len(columns) == 96
        assert (grey[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == shade * 80).all()
        above = grey[: rows[0], columns] if not where[0] else grey[rows[0] - 16 : rows[0], columns]
        assert (above < 128).any()  # its caption


def test_a_picture_comes_back_as_it_was(tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    save_picture(picture, tmp_path / "new" / "0000.png")
    with Image.open(tmp_path / "new" / "0000.png") as found:
        np.testing.assert_array_equal(np.asarray(found), picture)
