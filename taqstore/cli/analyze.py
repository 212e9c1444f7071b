"""`taqstore analyze NAME STORE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from taqstore.cli import analyze_ranges
from taqstore.cli.analysis import BITS, analysis, command, run
from taqstore.cli.common import say

__all__ = ["analyze_ranges", "command"]

_MOMENTUM = click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.95,
    show_default=True,
    help="Weight of what came before in the moving average.",
)


@analysis(_MOMENTUM)
def shifts(**given: Any) -> None:
    """Channel shifts (EMA of midpoints over batches) and the ranges they leave."""
    run("shifts", given, "momentum")


@analysis(
    click.option(
        "--threshold",
        type=float,
        default=2.5,
        show_default=True,
        help="Outliers are wider than this many medians.",
    ),
    click.option("--at-step", "at_step", type=int, help="Step of the rule [default: middle]."),
    click.option(
        "--top-fraction",
        type=float,
        default=0.02,
        show_default=True,
        help="Share of the widest channels, listed besides.",
    ),
    click.option(
        "--spike",
        type=float,
        default=5.0,
        show_default=True,
        help="Spikes are wider than this many 99th percentiles.",
    ),
)
def outliers(at_step: int | None, **given: Any) -> None:
    """Outlier channels by multiple of the median range, with their multipliers."""
    chosen = {**given, "outlier_step": at_step}
    run("outliers", chosen, "threshold", "top_fraction", "spike", "outlier_step")


@analysis(
    BITS,
    click.option(
        "--clip",
        type=click.Choice(["absmax", "mse"]),
        default="absmax",
        show_default=True,
        help="Clip bounds whose errors are compared.",
    ),
)
def temporal(**given: Any) -> None:
    """Drift over the steps against sigma, and what one static clip bound costs."""
    run("temporal", given, "bits", "clip")


@analysis(
    click.option("--a4", type=float, help="4 bits below this clip bound [default: 6]."),
    click.option("--a6", type=float, help="6 bits below this, 8 above [default: 10]."),
    click.option("--shifted-a4", type=float, help="The same for mlp.fc2 [default: 5]."),
    click.option("--shifted-a6", type=float, help="The same for mlp.fc2 [default: 8]."),
    click.option(
        "--clip",
        type=click.Choice(["absmax", "p999"]),
        default="absmax",
        show_default=True,
        help="What the clip bound is taken from.",
    ),
)
def tiers(**given: Any) -> None:
    """Bits for every step and layer by thresholds (4, 6 or 8)."""
    from taqstore.analysis import Thresholds

    names = ("a4", "a6", "shifted_a4", "shifted_a6")
    chosen = {name: given.pop(name) for name in names}
    limits = Thresholds(**{name: value for name, value in chosen.items() if value is not None})
    run("tiers", {**given, "thresholds": limits}, "thresholds", "clip")


@analysis(
    click.option(
        "--rule",
        type=click.Choice(["poly", "lut"]),
        default="poly",
        show_default=True,
        help="Polynomials of sigma, or the table itself.",
    ),
    click.option(
        "--cubic-gain",
        type=float,
        default=0.15,
        show_default=True,
        help="R2 that degree 3 must gain over 2.",
    ),
    click.option(
        "--quartic-gain",
        type=float,
        default=0.10,
        show_default=True,
        help="R2 that degree 4 must gain over 3.",
    ),
)
def schedule(cubic_gain: float, quartic_gain: float, **given: Any) -> None:
    """Clip bounds over sigma: the table, or polynomials fitted to it."""
    from taqstore.analysis import FitRule

    fit = FitRule(cubic_gain=cubic_gain, quartic_gain=quartic_gain)
    run("schedule", {**given, "fit": fit}, "rule", "fit")


@analysis(
    click.option(
        "--rule",
        type=click.Choice(["smoothquant", "viditq", "ptq4dit"]),
        default="smoothquant",
        show_default=True,
        help="Whose factors.",
    ),
    click.option(
        "--weights",
        "file",
        type=click.Path(exists=True, dir_okay=False),
        help=".safetensors or .npz of the model [default: weights in STORE].",
    ),
    click.option(
        "--strength",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="How much goes to the weights.",
    ),
    click.option(
        "--cut",
        "cuts",
        type=float,
        multiple=True,
        help="Sigma between time ranges (viditq). Repeatable.",
    ),
)
def smooth(file: str | None, **given: Any) -> None:
    """Channel factors that move the difficulty from activations to weights."""
    weights = _weights_of_file(file) if file else _weights_of_store(given["store"])
    run("smooth", {**given, "weights": weights}, "weights", "rule", "strength", "cuts")


def _weights_of_file(path: str) -> Any:
    from importlib import import_module

    from taqstore.cli import WEIGHTS_PIPELINE

    found = import_module(WEIGHTS_PIPELINE).weight_absmax(Path(path))
    for note in found.notes:
        say(f"note: {note}")
    return found.sites


def _weights_of_store(address: str) -> Any:
    from taqstore.names import WEIGHTS
    from taqstore.store.reader import open_store

    store = open_store(address)
    return {p.partition("/")[2]: store[p] for p in store if p.startswith(WEIGHTS + "/")}


@analysis(
    _MOMENTUM,
    click.option("--orders", type=int, default=20, show_default=True, help="Orders of batches."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the random orders."),
)
def order(**given: Any) -> None:
    """How much EMA shifts and clip bounds move when batches come in another order."""
    run("order", given, "momentum", "orders", "seed")


@analysis()
def diagnostics(**given: Any) -> None:
    """Medians over channels, share of negative values, widest channels (post-GELU study)."""
    run("diagnostics", given)
