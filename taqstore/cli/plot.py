"""`taqstore plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from taqstore.cli.common import say, store_argument
from taqstore.cli.output import output_option

KINDS = (
    "range",
    "histogram",
    "ridgeline",
    "channels",
    "channelmap",
    "box",
    "heatmap",
    "negative",
    "sqnr",
    "trajectories",
    "curve",
    "groups",
    "bits",
    "diff",
    "order",
    "summary",
)


@click.command("plot")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@store_argument
@output_option(help="Folder.", required=True, only="folder")
@click.option("--layer", "layers", multiple=True, help="Layer glob or name. Repeatable.")
@click.option("--group", help="Group to draw [default: post-GELU statistics, else all sites].")
@click.option("--bits", type=click.IntRange(2, 16), help="Bit width, where a kind prices one.")
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    help="Weight of what came before, where a kind draws a moving average.",
)
@click.option("--step", type=int, help="Step index, where a kind draws one.")
@click.option("--average", type=click.FloatRange(2, 16), help="Bits per value to spend on average.")
@click.option(
    "--orders", type=click.IntRange(1), help="Orders of batches, where a kind tries some."
)
@click.option("--against", metavar="OTHER", help="Second store, where a kind compares two.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["png", "svg", "pdf"]),
    default=("png",),
    show_default=True,
    help="Kind of picture. Repeatable.",
)
def command(
    kind: str,
    store: str,
    output: Path,
    layers: tuple[str, ...],
    group: str | None,
    formats: tuple[str, ...],
    **given: Any,
) -> None:
    """Draw one KIND of figure from STORE, with a CSV of its numbers beside each picture.

    \b
    Kinds:
      range         channel ranges of every layer against sigma
      histogram     histogram of each layer, its steps overlaid
      ridgeline     histogram of each layer, a ridge for every step
      channels      range of each layer's channels, the widest 2 % in red
      channelmap    log2 of every channel's absmax at every step
      box           boxes of each layer's widest channels
      heatmap       mean, std, absmax and shift by block and sigma
      negative      share of values below zero by block and sigma
      sqnr          expected SQNR by block and sigma (--bits)
      trajectories  clip bounds and shifts over sigma, with fits (--momentum)
      curve         error against the clip bound, rules marked (--bits, --step)
      groups        error against groups of steps, chosen cuts (--bits)
      bits          allocation of bit widths (--average)
      diff          what changed in another store (--against)
      order         band of an average over batch orders (--momentum, --orders)
      summary       the table of medians, ranges, negative share and outliers
    """
    from taqstore.plot.draw import draw
    from taqstore.store.reader import open_store

    options = _options(kind, given)
    if "other" in options:
        options["other"] = open_store(options["other"])
    written, notes = draw(
        kind,
        open_store(store),
        output,
        group=group,
        layers=layers or None,
        formats=formats,
        **options,
    )
    for note in notes:
        say(f"note: {note}")
    for path in written:
        click.echo(str(path))


def _options(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, by their names in the library, if the kind takes them."""
    from taqstore.plot.draw import options_of

    flags = {"against": "other"}
    options = {flags.get(flag, flag): value for flag, value in given.items() if value is not None}
    takes, needs = options_of(kind)
    for flag in given:
        name = flags.get(flag, flag)
        if name in options and name not in takes:
            raise click.UsageError(f"plot {kind} takes no --{flag}")
        if name in needs and name not in options:
            raise click.UsageError(f"plot {kind} needs --{flag}")
    return options
