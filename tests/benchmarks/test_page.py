"""Tables of measurements are made from figures whose tables are known."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.compare.figures import Figure, Wanted, markdown, quantity, told
from benchmarks.growth.curves import Curve, Point
from benchmarks.page import PAGE, filled, made
from support.pages import cells

FIGURES = [
    Figure("info", "wall", "s", Wanted(0.45), [1.0, 1.2, 0.9], [0.4, 0.5, 0.41]),
    Figure("info", "memory", "B", Wanted(4e8), [5e8], [4.2e8]),
    Figure("layer", "times faster than np.load", "x", Wanted(50, at_least=True), [9.0], [120.4]),
    Figure("layer", "time", "s", None, [], [0.0004]),
]


def test_quantities_have_three_digits_and_a_unit() -> None:
    assert [quantity(v, "s") for v in (12.345, 0.98765, 4.2e-5)] == ["12.3 s", "988 ms", "0.042 ms"]
    assert quantity(2.5e9, "B") == "2500 MB"
    assert [quantity(v, "x") for v in (0.5, 12.34, 1234.5)] == ["0.5x", "12.3x", "1234x"]
    assert told([3.0, 1.0, 2.0], "s") == "2 s (1 s - 3 s)"
    assert told([2.0], "s") == told([2.0, 2.0], "s") == "2 s"
    assert told([], "s") == "-"


def test_what_is_after_and_not_as_wanted_is_bold() -> None:
    rows = [cells(line) for line in markdown(FIGURES)[2:]]
    assert rows == [
        ["info", "wall", "1 s (900 ms - 1.2 s)", "410 ms (400 ms - 500 ms)", "<= 450 ms"],
        ["", "memory", "500 MB", "**420 MB**", "<= 400 MB"],
        ["layer", "times faster than np.load", "9x", "120x", ">= 50x"],
        ["", "time", "-", "0.4 ms", ""],
    ]


def curve(power: float) -> dict[str, object]:
    points = [Point(n, n, [n**power + 1], [1.0], [10**8 + n]) for n in (1, 10, 100, 1000)]
    return Curve("error", "images", points).as_json()


def test_growth_has_a_line_for_each_action() -> None:
    for power, shown in ((1.0, "1.00 (0.9"), (2.0, "**2.00 (1.9")):
        (*_, line) = made({"growth": [curve(power)]})["growth"]
        found = cells(line)
        assert found[0] == "`error`"
        assert found[1].startswith(shown)
        assert found[2] == "flat; 100 MB"
        assert found[3:] == ["-"] * 4


def test_figures_come_back_from_json() -> None:
    assert [Figure.from_json(asdict(one)) for one in FIGURES] == FIGURES


def test_tables_are_put_between_their_marks_and_nothing_else_changes() -> None:
    page = (
        "a\n<!-- made: growth -->\nold\n<!-- /made -->\nb\n<!-- made: machine -->\n<!-- /made -->\n"
    )
    new = filled(page, {"growth": ["x", "y"]})
    assert new == page.replace("old", "x\ny")
    assert filled(new, {"growth": ["x", "y"]}) == new
    with pytest.raises(ValueError, match="compared"):
        filled(page, {"compared": []})


def test_the_page_has_a_place_for_every_table(tmp_path: Path) -> None:
    about = {
        "python": "3.11.1", "system": "Linux 6", "machine": "x86_64", "cpus": 2,
        "packages": {"numpy": "2"}, "blas": {"numpy": "openblas 1", "mlx": "OpenBLAS 2"},
    }  # fmt: skip
    results = {
        "compared": [one.as_json() for one in FIGURES],
        "growth": [curve(1.0)],
        "environment": about,
        "trees": {"before": "abc", "after": "def"},
    }
    page = filled(PAGE.read_text("utf-8"), made(results))
    assert "MLX with OpenBLAS 2." in page
    assert "| info | wall |" in page
