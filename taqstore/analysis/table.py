"""The analyses by the words of `taqstore analyze`: `ANALYSES` is the only list of them.

A row names a function and declares its options; subcommands, their help, what `query.analyze` runs
and the table in the documentation are made from it. Functions are named, not imported: this file
costs nothing to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from taqstore.analysis.ranges.options import (
    BITS,
    BOUND,
    CLIP,
    CUTS,
    GROUP_SIZE,
    MOMENTUM,
    PER,
    PERCENTILE,
    RANGE,
    SHIFT_MOMENTUM,
    STATIC_CLIP,
    SYMMETRIC,
)
from taqstore.analysis.shared.option import Option, When, asked
from taqstore.analysis.shared.row import Analysis
from taqstore.analysis.whole_rows import WHOLE
from taqstore.asked import MAX_SEED
from taqstore.names import ACTIVATIONS, SECOND_MOMENTS
from taqstore.store.given import handed

_P = ParamSpec("_P")
_R = TypeVar("_R")


_HERE = "taqstore.analysis"
_BY_COUNT = When("method", ("optimal", "cluster"))


def _fit(name: str, help: str, **particulars: Any) -> Option:
    told = {"least": 0, "bundle": "fit", "when": When("rule", ("poly",)), **particulars}
    return Option(name, help, **told)


def _tier(name: str, help: str) -> Option:
    return Option(name, help, least=0, above=True, bundle="thresholds")


def _bound(name: str, help: str) -> Option:
    """No statistics reach further: float32 ends at 3.4e38."""
    return Option(name, help, least=-1e38, most=1e38, above=True, below=True)


FIT = (
    _fit("cubic_gain", "R2 that degree 3 must gain over 2.", default=0.15, most=1),
    _fit("quartic_gain", "R2 that degree 4 must gain over 3.", default=0.10, most=1),
    _fit("max_degree", "highest degree tried.", default=4, type=int, least=2, most=4),
    _fit("constant_below", "degree 0 where bounds differ by less.", default=0.0),
    _fit("quadratic_below", "degree 2 where bounds differ by less.", default=0.0),
)
"""How a polynomial schedule is fitted."""

TIERS = (
    _tier("a4", "4 bits below this clip bound [default: 6]."),
    _tier("a6", "6 bits below this, 8 above [default: 10]."),
    _tier("shifted_a4", "The same for mlp.fc2 [default: 5]."),
    _tier("shifted_a6", "The same for mlp.fc2 [default: 8]."),
)
"""Clip bounds at which bits change."""

ANALYSES: dict[str, Analysis] = {
    "scales": Analysis(
        "Clip bounds, step sizes and zero points for every step and layer.",
        f"{_HERE}.scales:scales",
        (*RANGE, PER, GROUP_SIZE),
    ),
    "error": Analysis(
        "Expected quantization error, SQNR and clip loss of a rule, from histograms.",
        f"{_HERE}.error:error",
        (
            *RANGE,
            _bound("lower", "A lower bound in place of a rule's [default: -upper]."),
            _bound("upper", "An upper bound in place of a rule's."),
        ),
        by_layer=True,
    ),
    "curve": Analysis(
        "Expected error over clip ranges, with the range of every rule marked.",
        f"{_HERE}.curve:curve",
        (
            BITS,
            SYMMETRIC,
            PERCENTILE.but(help="Of the percentile rules.", when=None),
            MOMENTUM.but(help="Of the moving average: weight of what came before.", when=None),
        ),
        by_layer=True,
    ),
    "shifts": Analysis(
        "Channel shifts (EMA of midpoints over batches) and the ranges they leave.",
        f"{_HERE}.shifts:shifts",
        (SHIFT_MOMENTUM,),
        by_layer=True,
        wide=True,
    ),
    "outliers": Analysis(
        "Outlier channels by multiple of the median range, with their multipliers.",
        f"{_HERE}.outliers:outliers",
        (
            Option(
                "threshold",
                "Outliers are wider than this many medians.",
                default=2.5,
                least=0,
                above=True,
            ),
            Option("step", "Step of the rule [default: middle].", int, least=0, flag="at-step"),
            Option(
                "top_fraction",
                "Share of the widest channels, listed besides.",
                default=0.02,
                least=0,
                most=1,
                above=True,
            ),
            Option(
                "spike",
                "Spikes are wider than this many 99th percentiles.",
                default=5.0,
                least=0,
                above=True,
            ),
        ),
        by_layer=True,
        wide=True,
    ),
    "temporal": Analysis(
        "Drift over the steps against sigma, and what one static clip bound costs.",
        f"{_HERE}.temporal:temporal",
        (BITS, STATIC_CLIP),
        by_layer=True,
        wide=True,
    ),
    "tiers": Analysis(
        "Bits for every step and layer by thresholds (4, 6 or 8).",
        f"{_HERE}.tiers:tiers",
        (
            *TIERS,
            CLIP.but(aliases={"p999": "hist_p999"}),
            *BOUND[1:],
        ),
        bundles={"thresholds": f"{_HERE}.tiers:Thresholds"},
        by_layer=True,
    ),
    "schedule": Analysis(
        "Clip bounds over sigma: the table, or polynomials fitted to it.",
        f"{_HERE}.schedule:schedule",
        (
            Option(
                "rule",
                "Polynomials of sigma, or the table itself.",
                str,
                "poly",
                choices=("poly", "lut"),
            ),
            *BOUND,
            CUTS,
            *FIT,
        ),
        bundles={"fit": f"{_HERE}.schedule:FitRule"},
    ),
    "groups": Analysis(
        "Groups of neighbouring steps that share a clip range, and what that costs.",
        f"{_HERE}.groups:groups",
        (
            BITS,
            SYMMETRIC,
            Option(
                "method",
                "Least error, clustering of neighbours, buckets of sigma, or where --cuts say.",
                str,
                "optimal",
                choices=("optimal", "cluster", "sigma", "given"),
            ),
            Option(
                "count",
                "groups [default: by --tolerance].",
                int,
                least=1,
                when=_BY_COUNT,
            ),
            Option(
                "tolerance",
                "error that groups may add to a range for every step.",
                default=0.05,
                least=0,
                when=_BY_COUNT,
                unless="count",
            ),
            Option(
                "sigma_edges",
                "Edge between buckets of sigma; a step on it is of the noisier one. Repeatable.",
                default=(0.3, 0.7),
                least=0,
                many=True,
                flag="sigma-edge",
            ),
            CUTS.but(
                help="one group (static), or groups of steps that begin at these: 7,14.",
                when=When("method", ("given",)),
                needed=True,
            ),
            Option("shared", "The same groups for all layers of a site.", bool, False),
        ),
        by_layer=True,
        across="shared",
    ),
    "bits": Analysis(
        "Best bit widths of all layers under a budget of average bits.",
        f"{_HERE}.bits:bits",
        (
            SYMMETRIC,
            Option(
                "average",
                "Budget: average bits [default: halfway below the middle width].",
                least=2,
                most=16,
            ),
            Option(
                "choices",
                "A bit width to choose from. Repeatable.",
                int,
                (4, 6, 8),
                least=2,
                most=16,
                many=True,
                flag="choice",
            ),
            Option(
                "per",
                "One width for a layer, or for each of its steps.",
                str,
                "layer",
                choices=("layer", "step"),
            ),
            Option(
                "weight",
                "Errors as shares of the mean square, or as they are.",
                str,
                "relative",
                choices=("relative", "absolute"),
            ),
        ),
        joint=f"{_HERE}.bits:joint_bits",
        apart=f"{_HERE}.bits:choice_errors",
        by_layer=True,
    ),
    "smooth": Analysis(
        "Channel factors that move the difficulty from activations to weights.",
        f"{_HERE}.smooth:smooth",
        (
            Option(
                "rule",
                "Whose factors, as their code has them; the last two make do without batches.",
                str,
                "smoothquant",
                choices=("smoothquant", "viditq", "ptq4dit", "smoothquant-ranges", "ptq4dit-steps"),
            ),
            Option(
                "weights",
                "Weight set of STORE, or .safetensors or .npz of the model [default: the only set,"
                " or weights of its model].",
                "weights",
            ),
            Option(
                "strength",
                "how much goes to the weights.",
                default=0.5,
                least=0,
                most=1,
                when=When("rule", ("smoothquant", "viditq", "smoothquant-ranges")),
            ),
            MOMENTUM.but(default=0.95, when=When("rule", ("viditq",))),
            Option(
                "cuts",
                "sigma between time ranges. Repeatable.",
                default=(),
                least=0,
                many=True,
                when=When("rule", ("viditq", "smoothquant-ranges")),
                flag="cut",
            ),
        ),
    ),
    "order": Analysis(
        "How much EMA shifts and clip bounds move when batches come in another order.",
        f"{_HERE}.order:order",
        (
            SHIFT_MOMENTUM,
            Option("orders", "Orders of batches.", int, 20, least=1, most=10_000),
            Option("seed", "Of the random orders.", int, 0, least=0, most=MAX_SEED),
        ),
        by_layer=True,
        wide=True,
    ),
    "enough": Analysis(
        "How many images, or steps, are enough: what 4 times as many would change.",
        f"{_HERE}.enough:enough",
        (
            Option(
                "score",
                "What is to settle: the clip bound, or the expected error with it.",
                str,
                "bound",
                choices=("bound", "error"),
            ),
            CLIP,
            PERCENTILE,
            MOMENTUM,
            BITS,
            SYMMETRIC,
            Option("tolerance", "Move that is small enough.", default=0.02, least=0, above=True),
            Option(
                "along",
                "Subsets of images, or every s-th step.",
                str,
                "images",
                choices=("images", "steps"),
            ),
            Option(
                "orders", "Random orders that subsets are cut from.", int, 4, least=1, most=1000
            ),
            Option("seed", "Of the random orders.", int, 0, least=0, most=MAX_SEED),
        ),
    ),
    "diagnostics": Analysis(
        "Medians over channels, share of negative values, widest channels (post-GELU study).",
        f"{_HERE}.diagnostics:diagnostics",
        by_layer=True,
        wide=True,
    ),
    "moments": Analysis(
        "Energy, effective rank and correlation of channels, from second moments.",
        f"{_HERE}.moments:moments",
        (
            Option(
                "top_fraction",
                "Share of the channels that is how many of the largest directions count.",
                default=0.01,
                least=0,
                most=1,
            ),
        ),
        source=SECOND_MOMENTS,
    ),
    **WHOLE,
}


def of_row(name: str, *, blocks: bool = True) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator of an analysis: what it is of, and what its row says of options, is checked."""
    checked = asked(lambda: ANALYSES[name].options, name)
    given = handed(
        source=ANALYSES[name].source or ACTIVATIONS,
        blocks=blocks,
        others=f'or of all sites taqstore.query.analyze("{name}", store)',
    )
    return lambda function: given(checked(function))
