"""`taqstore export FORMAT STORE`: a subcommand for every row of `export.FORMATS`."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import click

from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.asked import listed
from taqstore.cli import BASE_WEIGHTS
from taqstore.cli.common import say, store_argument
from taqstore.cli.options import click_option, given_of, settled
from taqstore.cli.output import output_option, replace_option, replacing
from taqstore.cli.scheduler import computing, in_process, scheduler_option
from taqstore.cli.several import addresses, open_asked, with_others
from taqstore.cli.talk import Command, talk_options
from taqstore.cli.words import WordGroup
from taqstore.export.formats import FORMATS, MULTITIER, Format
from taqstore.run.memory import give_back_large

_OTHER_SCHEMA = click.option(
    "--multitier", is_flag=True, help="The schema of the multi-tier analyser."
)


class _Formats(WordGroup):
    """Subcommands made when asked for, from what the table then holds."""

    kind = "export format"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(FORMATS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List formats with all that is said of them."""
        with formatter.section("Formats"):
            formatter.write_dl([(name, row.doc) for name, row in FORMATS.items()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        row = FORMATS.get(cmd_name)
        return None if row is None else _subcommand(cmd_name, row)


@click.group(
    "export",
    cls=_Formats,
    params=talk_options(),
    subcommand_metavar="FORMAT STORE -o OUT [OPTIONS]...",
)
def command() -> None:
    """Write STORE's content in FORMAT.

    JSON documents are validated against their schema and appear whole or not at all. Clip ranges
    are chosen by the options of `taqstore analyze scales`, with the same numbers.

    \b
    Examples:
      taqstore export quant-config run.zarr -o quant_config.json --bits 8 --clip percentile
      taqstore export mlx run.zarr --weights gptq -o packed
    """


class _Command(Command):
    """A format: options of others are refused by saying whose they are not."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.option_name in _SPELLINGS:
                what = f"{error.option_name} does not go with {self.name}"
                if takers := [name for name, row in FORMATS.items() if _takes(row, error)]:
                    what += f"; it goes with {listed(takers)}"
                raise click.UsageError(what, ctx) from None
            raise


def _takes(row: Format, error: click.NoSuchOption) -> bool:
    return any(error.option_name in option.spellings for option in row.options)


def _subcommand(name: str, row: Format) -> click.Command:
    made: Any = partial(_export, name)
    offered = {option.name: option for option in (*row.options, *_other(name))}
    offered |= {option.name: option for option in row.options}
    written = output_option(help="File or folder to write.", required=True)
    shared = [store_argument, written, with_others]
    own = [click_option(option, explicit=True) for option in offered.values()]
    tiered = [_OTHER_SCHEMA] if f"{name}{MULTITIER}" in FORMATS else []
    for decorate in reversed((*shared, *own, *tiered, replace_option, scheduler_option)):
        made = decorate(made)
    return click.command(name, cls=_Command, help=f"Write STORE as: {row.doc}.")(made)


def _other(name: str) -> tuple[Option, ...]:
    """Options of the format that `--multitier` makes of this one."""
    other = FORMATS.get(f"{name}{MULTITIER}")
    return () if other is None else other.options


def _export(
    name: str,
    *,
    store: str,
    output: Path,
    force: bool,
    scheduler: str,
    multitier: bool = False,
    **given: Any,
) -> None:
    from taqstore.files.staged import check_file
    from taqstore.place.sizes import format_bytes

    chosen = f"{name}{MULTITIER}" if multitier else name
    options = _options(name, chosen, given)
    FORMATS[chosen].check_name(output)
    if FORMATS[chosen].schema:
        check_file(output, force=force)
    opened = open_asked(store, chunks=_chunks(FORMATS[chosen], scheduler), checksum=True)
    if layout := FORMATS[chosen].layout:
        pipeline = import_module(BASE_WEIGHTS)
        options["base"] = pipeline.base_weights(opened, layout, checkpoint=options.get("base"))
    if FORMATS[chosen].schema:  # observations of whole sites are reduced, one after the other
        give_back_large()
    with replacing(output, force=force), computing(scheduler, *addresses(store)):
        from taqstore.export.formats import export

        summary = export(chosen, opened, output, force=force, **options)
    files = "" if summary.files == 1 else f" in {summary.files} files"
    say(f"wrote {summary.path}, {format_bytes(summary.bytes)}{files}")
    for note in summary.notes:
        say(f"note: {note}")


def _chunks(row: Format, scheduler: str) -> Literal["late", "auto"] | None:
    """How a store is opened for a format: what dask divides goes to other processes."""
    if not in_process(scheduler):
        return "auto"
    # Documents reduce whole observations, layer by layer; the others copy views of mapped files.
    return "late" if row.schema else None


def _options(name: str, chosen: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, if the format takes them."""
    rows = FORMATS[chosen].options
    own = {option.name for option in rows}
    for option in (*_other(name), *FORMATS[name].options):
        if option.name not in own and option.is_given(given_of(option, given)):
            where = f"{name} without --multitier" if chosen == name else chosen
            raise click.UsageError(f"{option.spellings[0]} does not go with {where}")
    settled(rows, dict(given), who=chosen)
    values = {option.name: given_of(option, given) for option in rows}
    return {option.name: v for option in rows if option.is_given(v := values[option.name])}


# Of options that some format takes, or that choose a range in `analyze scales`.
_SPELLINGS = {
    spelling
    for options in (*(row.options for row in FORMATS.values()), ANALYSES["scales"].options)
    for option in options
    for spelling in option.spellings
}
