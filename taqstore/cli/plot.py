"""`taqstore plot`."""

from __future__ import annotations

from pathlib import Path

import click

from taqstore.cli.common import say, store_argument

KINDS = ("range", "histogram", "channels", "heatmap", "negative", "summary")


@click.command("plot")
@click.argument("kind", type=click.Choice(KINDS), metavar="KIND")
@store_argument
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False), help="Folder.")
@click.option("--layer", "layers", multiple=True, help="Layer glob or name. Repeatable.")
@click.option("--group", help="Group to draw [default: post-GELU statistics, else all sites].")
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
    output: str,
    layers: tuple[str, ...],
    group: str | None,
    formats: tuple[str, ...],
) -> None:
    """Draw one KIND of figure from STORE, with a CSV of its numbers beside each picture.

    \b
    Kinds:
      range      channel ranges of every layer against sigma
      histogram  histogram of each layer, its steps overlaid
      channels   range of each layer's channels, the widest 2 % in red
      heatmap    mean and std (or absmax and shift) by block and sigma
      negative   share of values below zero by block and sigma
      summary    the table of medians, ranges, negative share and outliers
    """
    from taqstore.plot.store import draw
    from taqstore.store import open_store

    written, notes = draw(
        kind, open_store(store), Path(output), group=group, layers=layers or None, formats=formats
    )
    for note in notes:
        say(f"note: {note}")
    for path in written:
        click.echo(str(path))
