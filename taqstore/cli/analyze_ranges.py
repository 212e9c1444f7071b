"""`taqstore analyze` of clip ranges: rules, what they cost, time groups and bits."""

from __future__ import annotations

from typing import Any

import click

from taqstore.cli.analysis import BITS, analysis, run

_SYMMETRIC = click.option(
    "--symmetric/--affine", default=True, show_default=True, help="Zero point 0, or fitted."
)
_RULES = (
    *("absmax", "minmax", "average", "ema"),
    *("percentile", "mean_percentile", "mse", "l2.4", "entropy"),
)
_CLIP = click.option(
    "--clip",
    type=click.Choice(_RULES),
    default="absmax",
    show_default=True,
    help="Rule of the clip range.",
)
_PERCENTILE = click.option(
    "--percentile",
    type=float,
    default=99.9,
    show_default=True,
    help="With --clip percentile or mean_percentile.",
)
_EMA = click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.99,
    show_default=True,
    help="With --clip ema: weight of what came before.",
)


def _integers(context: click.Context, option: click.Parameter, text: str | None) -> Any:
    """Read ``2,0,1``; the word `static` stays as it is."""
    if text is None or text == "static":
        return text
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of integers like 2,0,1") from None


_ORDER = click.option(
    "--order", callback=_integers, help="With --clip ema: positions of batches in order, as 2,0,1."
)
_CUTS = click.option(
    "--cuts",
    callback=_integers,
    help="One range for all steps (static), or groups of steps that begin at these: 7,14.",
)
_NARROW = click.option("--narrow-range", is_flag=True, help="Leave out the smallest integer.")
_RULE = (BITS, _SYMMETRIC, _CLIP, _PERCENTILE, _EMA, _ORDER, _CUTS, _NARROW)
_RULE_NAMES = (
    *("bits", "symmetric", "clip", "percentile", "momentum", "order", "cuts", "narrow_range"),
)


@analysis(
    *_RULE,
    click.option(
        "--per",
        type=click.Choice(["tensor", "channel", "group"]),
        default="tensor",
        show_default=True,
        help="One range for a tensor, a channel, or --group-size channels.",
    ),
    click.option("--group-size", type=click.IntRange(1), help="With --per group."),
)
def scales(**given: Any) -> None:
    """Clip bounds, step sizes and zero points for every step and layer."""
    run("scales", given, *_RULE_NAMES, "per", "group_size")


@analysis(*_RULE)
def error(**given: Any) -> None:
    """Expected quantization error, SQNR and clip loss of a rule, from histograms."""
    run("error", given, *_RULE_NAMES)


@analysis(BITS, _SYMMETRIC, _PERCENTILE, _EMA)
def curve(**given: Any) -> None:
    """Expected error over clip ranges, with the range of every rule marked."""
    run("curve", given, "bits", "symmetric", "percentile", "momentum")


@analysis(
    BITS,
    _SYMMETRIC,
    click.option(
        "--method",
        type=click.Choice(["optimal", "cluster", "sigma"]),
        default="optimal",
        show_default=True,
        help="Least error, clustering of neighbours, or buckets of sigma.",
    ),
    click.option("--count", type=click.IntRange(1), help="Groups [default: by --tolerance]."),
    click.option(
        "--tolerance",
        type=click.FloatRange(0),
        default=0.05,
        show_default=True,
        help="Error that groups may add to a range for every step.",
    ),
    click.option(
        "--sigma-edge",
        "sigma_edges",
        type=float,
        multiple=True,
        default=(0.3, 0.7),
        show_default=True,
        help="Edge between buckets of sigma. Repeatable.",
    ),
    click.option("--shared", is_flag=True, help="The same groups for all layers of a site."),
)
def groups(**given: Any) -> None:
    """Groups of neighbouring steps that share a clip range, and what that costs."""
    names = ("method", "count", "tolerance", "sigma_edges", "shared")
    run("groups", given, "bits", "symmetric", *names)


@analysis(
    _SYMMETRIC,
    click.option(
        "--average", type=float, default=6.0, show_default=True, help="Budget: average bits."
    ),
    click.option(
        "--choice",
        "choices",
        type=click.IntRange(2, 16),
        multiple=True,
        default=(4, 6, 8),
        show_default=True,
        help="A bit width to choose from. Repeatable.",
    ),
    click.option(
        "--per",
        type=click.Choice(["layer", "step"]),
        default="layer",
        show_default=True,
        help="One width for a layer, or for each of its steps.",
    ),
    click.option(
        "--weight",
        type=click.Choice(["relative", "absolute"]),
        default="relative",
        show_default=True,
        help="Errors as shares of the mean square, or as they are.",
    ),
)
def bits(**given: Any) -> None:
    """Best bit widths of all layers under a budget of average bits."""
    run("bits", given, "average", "choices", "per", "weight", "symmetric")
