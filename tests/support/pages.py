"""The written pages: their tables, code and links."""

from __future__ import annotations

import re
from pathlib import Path

from support.rooms import ROOT

# Every page a stranger may read. The card of the reference model is made by its own code.
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *(ROOT / name / "README.md" for name in ("benchmarks", "pipelines", "schemas")),
    )
)
_CELL = re.compile(r"(?<!\\)\|")


def read_page(page: str) -> str:
    """Text of a page by its path from the top of the checkout."""
    return (ROOT / page).read_text(encoding="utf-8")


def table_lines(page: str, name: str) -> list[str]:
    """Lines of the table below ``<!-- table: name -->``: head, rule, rows."""
    marker = f"<!-- table: {name} -->\n"
    text = read_page(page)
    assert text.count(marker) == 1, f"{page} has no table {name!r}, or two"
    return text.split(marker)[1].split("\n\n")[0].splitlines()


def cells(line: str) -> list[str]:
    """Cells of one line of a table."""
    return [cell.strip() for cell in _CELL.split(line)[1:-1]]


def read_table(page: str, name: str) -> list[list[str]]:
    """Cells of the rows of a table, without its head."""
    return [cells(line) for line in table_lines(page, name)[2:]]


def ticked(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def fenced(page: str, language: str = "") -> list[str]:
    """Blocks of code of one language in a page."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", read_page(page), re.M | re.S)
    return [text for found, text in blocks if found == language]


def links(page: str) -> list[Path]:
    """Files and folders that a page links to or shows."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read_page(page))
    folder = (ROOT / page).parent
    return [folder / target for target in targets if "://" not in target]
