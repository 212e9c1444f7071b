"""Tables in the written pages say what the code says. `make tables` writes them anew."""

from __future__ import annotations

import re

import pytest

from benchmarks.growth.curves import GROWTH
from benchmarks.questions import GROUPS, QUESTIONS, SIZES
from support.docs_pages import TABLES, DocTable
from support.pages import cells, read_page, read_table, ticked


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_a_table_has_the_rows_of_the_code(table: DocTable) -> None:
    made, written = map(cells, table.made()), map(cells, table.written())
    known = [line[: len(own)] for line, own in zip(written, made, strict=False)]
    assert known == [cells(line) for line in table.made()], "`make tables` writes the table anew"
    assert len(table.written()) == len(table.made()) > 3


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_no_row_is_left_without_words(table: DocTable) -> None:
    head, _, *rows = map(cells, table.written())
    assert [row for row in rows if not all(row[:2]) or len(row) != len(head)] == []


def test_the_groups_of_the_store_are_those_of_the_format() -> None:
    shown = {ticked(cells[0])[0] for cells in read_table("docs/store.md", "groups")}
    rows = re.findall(r"^\| ((?:`[a-z_/<>]+`(?:, )?)+) \|", read_page("schemas/README.md"), re.M)
    normative = {name for row in rows for name in ticked(row)}
    assert len(normative) > 8

    def root(name: str) -> str:
        return name.split("/")[0]

    assert {root(name) for name in shown} == {root(name) for name in normative}


def test_what_the_benchmarks_can_measure_is_listed_once() -> None:
    rows = read_table("benchmarks/README.md", "rows")
    listed = [name for cells in rows for name in ticked(cells[0])]
    assert sorted(listed) == sorted([*QUESTIONS, *GROUPS, SIZES, *GROWTH, "growth"])
