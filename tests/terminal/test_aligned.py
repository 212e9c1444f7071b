"""Tables on a terminal: as they are where they fit, else what says least gives way first."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taqstore.terminal.aligned import cut, print_aligned, print_fitted, print_folded
from taqstore.terminal.width import room, show_everything

TABLE = [
    ["site", "mlp.fc2", "mlp.fc2", "mlp.fc2"],
    ["layer", "mm0.img", "mm0.txt", "mm1.img"],
    ["block", "mm0", "mm0", "mm1"],
    ["prompt", "a photo of a cat on a mat", "a photo of a dog", "a zero"],
    ["alpha", "1.25", "31.5", "4"],
]
RIGHT = [False, False, False, False, True]


def printed(width: int | None, monkeypatch: pytest.MonkeyPatch, **options: object) -> list[str]:
    if width is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    print_fitted(TABLE, RIGHT, stream=stream, **options)  # type: ignore[arg-type]
    return stream.getvalue().splitlines()


def whole() -> list[str]:
    stream = io.StringIO()
    print_aligned(TABLE, RIGHT, stream=stream)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [None, 57, 200])
def test_what_fits_is_as_it_is(monkeypatch: pytest.MonkeyPatch, width: int | None) -> None:
    assert max(map(len, whole())) == 57
    assert printed(width, monkeypatch) == whole()


def test_wide_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    show_everything(True)
    try:
        assert printed(20, monkeypatch) == whole()
    finally:
        show_everything(False)


def test_columns_that_say_the_same_go_first_then_cells_are_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert printed(56, monkeypatch) == [
        "all rows: site mlp.fc2",
        "layer    block  prompt                     alpha",
        "mm0.img  mm0    a photo of a cat on a mat   1.25",
        "mm0.txt  mm0    a photo of a dog            31.5",
        "mm1.img  mm1    a zero                         4",
    ]
    tight = printed(40, monkeypatch)
    assert tight[2] == "mm0.img  mm0    a photo of a ...   1.25"
    assert tight[-1] == "cut at ...; --wide shows all"


def test_then_columns_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = printed(34, monkeypatch)
    assert narrow[1] == "layer    block  prompt"
    assert narrow[-2:] == ["no room for alpha; --wide shows", "  all"]
    spared = printed(34, monkeypatch, spare=[2])
    assert spared[1] == "layer    prompt            alpha"
    assert spared[-2:] == ["no room for block; --wide shows", "  all"]


def test_rows_that_are_not_shown_count(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(56, monkeypatch, constant=lambda column: False)
    assert not any(line.startswith("all rows") for line in lines)
    assert "site" in lines[0]


def test_one_row_stands_upright_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    stream = io.StringIO()
    print_fitted([column[:2] for column in TABLE], RIGHT, stream=stream)
    assert stream.getvalue().splitlines() == [
        "site    mlp.fc2",
        "layer   mm0.img",
        "block   mm0",
        "prompt  a photo of a cat",
        "        on a mat",
        "alpha   1.25",
    ]


TEXT = st.text(st.sampled_from("abc. /-19e"), max_size=30)


@given(st.integers(0, 2**32), st.integers(20, 120))
def test_no_line_is_wider_and_nothing_is_lost_silently(seed: int, width: int) -> None:
    """Every column is shown, said to be the same in all rows, or named; numbers may stick out."""
    chance = random.Random(seed)
    rows, count = chance.randint(1, 6), chance.randint(1, 7)
    cells = [
        ["".join(chance.choices("abc. /-19e", k=chance.randint(0, 30))) for _ in range(rows)]
        for _ in range(count)
    ]
    columns = [[f"h{number}", *column] for number, column in enumerate(cells)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        stream = io.StringIO()
        print_fitted(columns, [False] * len(columns), stream=stream)
    text = stream.getvalue()
    numbers = max(len(cell) for column in cells for cell in column)
    assert all(len(line) <= max(width, numbers + 6) for line in text.splitlines())
    assert all(f"h{number}" in text for number in range(len(columns)))


@given(TEXT, st.integers(4, 40))
def test_a_cut_is_not_longer(text: str, length: int) -> None:
    found = cut(text, length)
    assert len(found) <= length
    assert found == text or "..." in found


def test_numbers_are_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = io.StringIO()
    spans = ["0.999900..0.999990 1234567", "0.998..0.999"]
    print_fitted([["v", "aa", "bb"], ["span", *spans]], [False, False], stream=stream)
    assert all(span in stream.getvalue() for span in spans)


def test_a_line_is_folded_under_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "26")
    stream = io.StringIO()
    print_folded("dims    ", "step=6 batch=4 layer=11 channel=512", stream=stream)
    assert stream.getvalue().splitlines() == [
        "dims    step=6 batch=4",
        "        layer=11",
        "        channel=512",
    ]


@pytest.mark.parametrize("said", ["", "0", "-3", "wide", "³"])
def test_a_variable_that_says_nothing_is_not_heard(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv("COLUMNS", said)
    assert room(io.StringIO()) is None
