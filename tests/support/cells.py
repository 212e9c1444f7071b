"""Numbers of a view and of the tables of the command that it shows, by where they stand."""

from __future__ import annotations

import json
from typing import Any

from support.asked import words_of
from support.cli_runner import Runner

Cells = dict[tuple[Any, ...], Any]


def printed(taq: Runner, line: str, *columns: str) -> dict[str, Cells]:
    """Columns of what a line prints: by site (of several), layer and step, those that there are."""
    answer = taq(*words_of(line), "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Cells] = {}
    for table in json.loads(answer.out)["tables"]:
        for column in set(columns) & set(table["dtypes"]):
            cells = found.setdefault(column, {})
            cells |= {_place(row, table["dims"]): row[column] for row in table["rows"]}
    return found


def _place(row: dict[str, Any], dims: list[str]) -> tuple[Any, ...]:
    order = ("site", "layer", "projection", "step", "channel")
    return tuple(row[dim] for dim in order if dim in dims or (dim == "site" and dim in row))


def shown(document: dict[str, Any], values: str = "values") -> Cells:
    """Values of a map by site, layer and step."""
    steps = document["steps"]
    return {
        (row["site"], row["layer"], step): value
        for row in document["rows"]
        for step, value in zip(steps, row[values], strict=True)
    }
