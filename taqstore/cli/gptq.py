"""`taqstore gptq`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from taqstore.cli import GPTQ_ERRORS, GPTQ_PIPELINE, GPTQ_SETTINGS, vocabulary
from taqstore.cli.common import is_given, renamed, store_argument
from taqstore.cli.completed import Named
from taqstore.cli.dry_run import dry_run_option, print_plan
from taqstore.cli.long_command import LongCommand, force_option, resume_option
from taqstore.cli.model_options import (
    local_ckpt_option,
    model_option,
    parse_names,
    set_option,
)
from taqstore.cli.outcome import groups_document, say_notes
from taqstore.cli.output import json_option, print_json, print_rows
from taqstore.cli.progress import progress_bar
from taqstore.cli.sharing import mode_of, sharing_options
from taqstore.cli.words import Word
from taqstore.quantization.defaults import DAMPING

_OF_SETTINGS = ("bits", "site_bits", "grid", "clip", "damping", "sigma_power", "step_dtype")


def _site_bits(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> dict[str, int]:
    """Widths by site, written `adaln.linear=6`."""
    found = {}
    for text in value:
        site, equals, bits = text.partition("=")
        if not equals or not bits.isascii() or not bits.isdigit():
            raise click.BadParameter(f"{text!r} is no SITE=BITS, like adaln.linear=6")
        found[site.strip()] = int(bits[:4])
    return found


@click.command("gptq", cls=LongCommand)
@store_argument
@click.option(
    "--sites",
    type=Named(vocabulary.every_site, commas=True),
    callback=parse_names,
    help="Sites, like mlp.fc2,adaln.linear [default: those of blocks, and adaln.linear].",
)
@renamed(
    "--weight-bits",
    "bits",
    old="--bits",
    type=click.IntRange(2, 8),
    default=4,
    show_default=True,
    help="Of weights.",
)
@click.option(
    "--site-bits",
    type=Named(vocabulary.widths),
    metavar="SITE=BITS",
    multiple=True,
    callback=_site_bits,
    help="Other bits at a site, like adaln.linear=6; may be repeated.",
)
@renamed(
    "--weight-group-size",
    "group_size",
    old="--group-size",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    help="Inputs that share a weight step; 0: all of an output channel.",
)
@click.option(
    "--grid",
    type=Word(["affine", "symmetric"]),
    default="affine",
    show_default=True,
    help="From end to end, as MLX's packed weights; or about 0, as AdaRound's.",
)
@renamed(
    "--weight-clip",
    "clip",
    old="--clip",
    type=Word(["absmax", "mse"]),
    default="absmax",
    show_default=True,
    help="Rule of symmetric steps; errors count as the squares of their inputs.",
)
@click.option(
    "--damping",
    type=click.FloatRange(0),
    default=DAMPING,
    show_default=True,
    help="Share of the mean diagonal added to a second moment.",
)
@click.option(
    "--sigma-power",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Groups of steps count as sigma ** POWER.",
)
@click.option(
    "--step-dtype",
    type=Word(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="What weight steps are rounded to, before the integers are made.",
)
@click.option(
    "--fallback",
    type=Word(["refuse", "nearest"]),
    default="refuse",
    show_default=True,
    help="Of sites without statistics: refuse them, or round them to nearest.",
)
@set_option("gptq")
@model_option
@local_ckpt_option
@resume_option
@force_option
@sharing_options
@dry_run_option
@json_option
def command(store: str, as_json: bool, **options: Any) -> None:
    """Round the weights of STORE's model by GPTQ, from the second moments of their inputs.

    The model is loaded for its weights and never run; taqstore collect --second-moment keeps what
    is needed. Where a site has activations alone, weights are rounded to nearest: squares of inputs
    can choose clip bounds (--grid symmetric --weight-clip mse) and no more.

    Prints what is left of the error that rounding to nearest leaves on these second moments: the
    mean over linears, and the worst. No linear is left with more. It is an error of layers, and
    says which way; taqstore evaluate says what the model loses.

    Writes integers and steps of each linear to weights/SET/<site>. Stopped, it goes on with
    --resume; several processes share the layers out.

    \b
    Examples:
      taqstore gptq run.zarr
      taqstore gptq run.zarr --weight-bits 3 --site-bits adaln.linear=6 --set w3
      taqstore gptq run.zarr --grid symmetric --weight-clip mse --weight-group-size 0
    """
    if is_given("clip") and options["grid"] == "affine":
        raise click.UsageError("--weight-clip is for --grid symmetric: affine grids have no bound")
    from taqstore.store.reader import open_store

    settings = import_module(GPTQ_SETTINGS).GptqSettings(
        group_size=options["group_size"] or None,
        fallback=options["fallback"],
        **{name: options[name] for name in _OF_SETTINGS},
    )
    opened = open_store(store)
    with progress_bar("loading the model", unit="linears") as progress:
        outcome = import_module(GPTQ_PIPELINE).gptq(
            opened,
            settings=settings,
            mode=mode_of(options, progress),
            **{name: options[name] for name in ("sites", "set", "model", "local_ckpt")},
        )
    if outcome.plan is not None:
        print_plan(outcome, as_json=as_json)
        return
    rows = import_module(GPTQ_ERRORS).site_errors(opened, set=options["set"])
    if as_json:
        groups = groups_document(outcome)
        print_json({"groups": groups, "sites": rows, "notes": outcome.notes})
    else:
        print_rows(
            tuple(rows[0]) if rows else ("site",),
            [_cells(row) for row in rows],
            spare=("weights", "linears") if rows else (),
        )
    say_notes(outcome)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row.values())
