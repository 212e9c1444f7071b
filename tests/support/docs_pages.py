"""Where the generated tables stand, and `make tables`, which writes them anew.

A generated table may lack columns that the page has: what the code does not know is written by
hand, and kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from support import docs_tables
from support.pages import cells, read_page, table_lines
from support.rooms import ROOT


@dataclass(frozen=True)
class DocTable:
    """One table of a page.

    Parameters
    ----------
    page
        Path from the top of the checkout.
    name
        As in ``<!-- table: name -->``.
    make
        Gives the table as Markdown.
    """

    page: str
    name: str
    make: Callable[[], str]

    def __str__(self) -> str:
        return f"{self.page}: {self.name}"

    def made(self) -> list[str]:
        """Its lines: head, rule, rows."""
        return self.make().splitlines()

    def written(self) -> list[str]:
        """The lines in the page."""
        return table_lines(self.page, self.name)

    def anew(self) -> Iterator[str]:
        """The lines that the page should have, with the cells written by hand."""
        made, written = self.made(), self.written()
        known = {cells(line)[0]: cells(line) for line in written[2:]}
        by_hand = [written[0], written[1], *(None for _ in made[2:])]
        for line, old in zip(made, by_hand, strict=True):
            row = cells(line)
            there = known.get(row[0], []) if old is None else cells(old)
            yield f"| {' | '.join((*row, *there[len(row) :]))} |".replace("| --- ", "|---")


TABLES = (
    DocTable("docs/commands.md", "commands", docs_tables.commands_table),
    DocTable("docs/commands.md", "figures", docs_tables.figure_table),
    DocTable("docs/commands.md", "formats", docs_tables.formats_table),
    DocTable("docs/commands.md", "sources", docs_tables.sources_table),
    DocTable("docs/commands.md", "endpoints", docs_tables.endpoints_table),
    DocTable("docs/analyses.md", "analyses", docs_tables.analyses_table),
    DocTable("docs/analyses.md", "options of all", docs_tables.shared_options_table),
    DocTable("docs/analyses.md", "clip rules", docs_tables.rules_table),
    DocTable("docs/analyses.md", "pastes", docs_tables.pastes_table),
    DocTable("docs/analyses.md", "options of each", docs_tables.every_option_table),
    DocTable("docs/store.md", "sources of statistics", docs_tables.statistics_sources_table),
    DocTable("docs/howto/bucket.md", "places", docs_tables.places_table),
    DocTable("pipelines/README.md", "models", docs_tables.models_table),
)


def main() -> None:
    """Write every table anew into its page."""
    for table in TABLES:
        old, new = "\n".join(table.written()), "\n".join(table.anew())
        marker = f"<!-- table: {table.name} -->\n"
        text = read_page(table.page).replace(marker + old, marker + new)
        (ROOT / table.page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
