"""Tables of the pages, generated from the code: tests compare them, `make tables` writes them.

A generated row may be shorter than the row in the page: cells that the code does not know are
written by hand and kept. Rows come from what a user can reach, the commands and their choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click
from taqstore.pipelines.models.table import MODELS

from support.pages import read_page, read_table
from support.rooms import ROOT
from taqstore.cli import COMMANDS, cli
from taqstore.query.analyze import PREFERENCE

Rows = list[list[str]]


@dataclass(frozen=True)
class DocTable:
    """One table of a page.

    Parameters
    ----------
    page
        Path from the top of the checkout.
    name
        As in ``<!-- table: name -->``.
    rows
        Makes the cells, from the first column on.
    """

    page: str
    name: str
    rows: Callable[[], Rows]

    def made(self) -> Rows:
        """The rows, as they are written in a page."""
        return [[cell.replace("|", r"\|") for cell in row] for row in self.rows()]

    def __str__(self) -> str:
        return f"{self.page}: {self.name}"


def root_context() -> click.Context:
    """What `taqstore` hands to its commands: commands remember the first one they are shown in."""
    return click.Context(cli, info_name="taqstore", **cli.context_settings)


def command_of(*words: str) -> click.Command:
    """A command or subcommand by its words."""
    context = root_context()
    found = cli.get_command(context, words[0])
    for word in words[1:]:
        assert isinstance(found, click.Group)
        found = found.get_command(context, word)
    assert found is not None, words
    return found


def _code(text: str) -> str:
    return f"`{text}`"


def _options(command: click.Command) -> list[str]:
    """Options, each by the name that is written first."""
    return [
        "/".join((p.opts[0], *p.secondary_opts))
        for p in command.params
        if isinstance(p, click.Option)
    ]


def _choices(parameter: str, *words: str) -> list[str]:
    """What a command's option or argument may be."""
    for found in command_of(*words).params:
        if found.name == parameter:
            assert isinstance(found.type, click.Choice)
            return list(found.type.choices)
    raise AssertionError(f"{' '.join(words)} has no {parameter}")


def commands() -> Rows:
    """Every command with its arguments, its line of help, its options."""
    rows = []
    for name, (_, text) in COMMANDS.items():
        command = command_of(name)
        if isinstance(command, click.Group):
            usage, options = f"{name} NAME STORE", ["see below"]
        else:
            pieces = command.collect_usage_pieces(click.Context(command, parent=root_context()))
            usage = " ".join((name, *pieces[1:]))
            options = [_code(option) for option in _options(command)]
        rows.append([_code(f"taqstore {usage}"), text.rstrip("."), " ".join(options)])
    return rows


def _analyses() -> dict[str, click.Command]:
    group = command_of("analyze")
    assert isinstance(group, click.Group)
    return group.commands


def _shared() -> set[str]:
    """Options that every analysis takes."""
    return set.intersection(*(set(_options(command)) for command in _analyses().values()))


def analyses() -> Rows:
    """Every word of `taqstore analyze`, its line of help, its own options."""
    shared = _shared()
    rows = []
    for name, command in _analyses().items():
        own = [_code(option) for option in _options(command) if option not in shared]
        rows.append([_code(name), command.get_short_help_str(200).rstrip("."), " ".join(own)])
    return rows


def shared_options() -> Rows:
    """Options of every analysis, with their help."""
    command, shared = next(iter(_analyses().values())), _shared()
    return [
        [_code(option), parameter.help or ""]
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in ["/".join((parameter.opts[0], *parameter.secondary_opts))]
        if option in shared
    ]


def _listed_in_help(*words: str) -> Rows:
    """Rows ``name  what it is`` of a list in a command's help."""
    found = re.findall(r"^ +(\S+) {2,}(\S.*)$", command_of(*words).help or "", re.M)
    return [[_code(name), text] for name, text in found]


def clip_rules() -> Rows:
    """Every rule of `--clip`."""
    return [[_code(name)] for name in _choices("clip", "analyze", "scales")]


def sources() -> Rows:
    """Every kind of `ingest --only`."""
    return [[_code(name)] for name in _choices("only", "ingest")]


def pooled_sources() -> Rows:
    """Sources of statistics, the preferred one first."""
    return [[_code(name)] for name in PREFERENCE]


def models() -> Rows:
    """Every model with its defaults of sampling."""
    return [
        [
            _code(row.name),
            _code(row.hub),
            row.dtype,
            "x".join(map(str, row.latent_size)),
            f"{row.shift:g}",
            f"{row.cfg_weight:g}" if row.guidance else "none",
        ]
        for row in MODELS.values()
    ]


TABLES = (
    DocTable("docs/commands.md", "commands", commands),
    DocTable("docs/commands.md", "analyses", analyses),
    DocTable("docs/commands.md", "options of every analysis", shared_options),
    DocTable("docs/commands.md", "clip rules", clip_rules),
    DocTable("docs/commands.md", "figures", lambda: _listed_in_help("plot")),
    DocTable("docs/commands.md", "formats", lambda: _listed_in_help("export")),
    DocTable("docs/commands.md", "sources", sources),
    DocTable("docs/store.md", "sources of statistics", pooled_sources),
    DocTable("pipelines/README.md", "models", models),
)


def _rewritten(table: DocTable) -> Iterator[str]:
    """Lines of a table's body, with the cells written by hand kept."""
    there = {cells[0]: cells for cells in read_table(table.page, table.name)}
    for row in table.made():
        by_hand = there.get(row[0], [])[len(row) :]
        yield f"| {' | '.join((*row, *by_hand))} |"


def main() -> None:
    """Write every table anew into its page."""
    for table in TABLES:
        before, marker, after = read_page(table.page).partition(f"<!-- table: {table.name} -->\n")
        old, gap, rest = after.partition("\n\n")
        lines = [*old.splitlines()[:2], *_rewritten(table)]
        text = "".join((before, marker, "\n".join(lines), gap, rest))
        (ROOT / table.page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
