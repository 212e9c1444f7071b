"""The analyses by the words of `taqstore analyze`: `ANALYSES` is the only list of them.

A row names a function and declares its options; subcommands, their help, what `query.analyze` runs
and the table in the documentation are made from it. Functions are named, not imported: this file
costs nothing to read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from taqstore.analysis.shared.score_costs import SCORES
from taqstore.asked import MAX_SEED
from taqstore.faces import named
from taqstore.names import SECOND_MOMENTS

_P = ParamSpec("_P")
_R = TypeVar("_R")


SELECTION = ("source", "site", "layer", "step", "batch")
"""Words that choose a part of a store."""


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Parameters
    ----------
    doc
        What it tells, one line.
    function
        ``module:function`` taking one group and options, and `site` where it matters; see `whole`.
    options
        In the order of the help.
    joint
        ``module:function`` for all sites together, where they must be seen so: Datasets by path ->
        results by path.
    source
        Group prefix that it is asked of unless another is named; empty: what analyses prefer.
    whole
        Whether it is asked of a whole store: the function takes all groups by path and gives
        results by a name of its own. They have no site.
    second
        Of a whole store: whether the function takes the groups of a second store after them.
    fails
        Whether results have the attribute `failure`, one line or nothing, and the command
        ``--fail``, which makes it the exit code.
    selects
        Of a whole store: those of `source`, `site`, `layer`, `step`, `batch` that it takes, all
        others are refused. With `source` the function is given statistics already sliced, those
        of the source alone; without, what was given as `sites`, `layer`, `step`, `batch`.
    pastes
        Words of ``--paste``, the texts that its answer can be printed as; see
        `export.pasted.table`, which has what they are.
    bundles
        Parameter of the function -> ``module:class``, made of the options that name the parameter
        as their `bundle`.
    """

    doc: str
    function: str
    options: tuple[Option, ...] = ()
    joint: str = ""
    source: str = ""
    whole: bool = False
    second: bool = False
    fails: bool = False
    selects: tuple[str, ...] = ()
    pastes: tuple[str, ...] = ()
    bundles: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Any:
        """The function."""
        return named(self.function)

    @property
    def takes(self) -> tuple[str, ...]:
        """Which of `SELECTION` it takes."""
        return self.selects if self.whole else SELECTION

    @property
    def of_statistics(self) -> bool:
        """Whether it is made of the statistics of a source."""
        return "source" in self.takes


_HERE = "taqstore.analysis"
HEADROOMS = ("float16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "int8")
"""Formats of `overflow`; `int8` is the accumulator of a product of int8 integers."""
_BY_COUNT = When("method", ("optimal", "cluster"))


def _fit(name: str, help: str, **particulars: Any) -> Option:
    told = {"least": 0, "bundle": "fit", "when": When("rule", ("poly",)), **particulars}
    return Option(name, help, **told)


def _tier(name: str, help: str) -> Option:
    return Option(name, help, least=0, above=True, bundle="thresholds")


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
        RANGE,
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
    ),
    "shifts": Analysis(
        "Channel shifts (EMA of midpoints over batches) and the ranges they leave.",
        f"{_HERE}.shifts:shifts",
        (SHIFT_MOMENTUM,),
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
    ),
    "temporal": Analysis(
        "Drift over the steps against sigma, and what one static clip bound costs.",
        f"{_HERE}.temporal:temporal",
        (BITS, STATIC_CLIP),
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
                "Least error, clustering of neighbours, or buckets of sigma.",
                str,
                "optimal",
                choices=("optimal", "cluster", "sigma"),
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
            Option("shared", "The same groups for all layers of a site.", bool, False),
        ),
    ),
    "bits": Analysis(
        "Best bit widths of all layers under a budget of average bits.",
        f"{_HERE}.bits:bits",
        (
            SYMMETRIC,
            Option("average", "Budget: average bits.", default=6.0, least=2, most=16),
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
    ),
    "drift": Analysis(
        "Whether OTHER, a LoRA or another sampler, leaves the range that STORE was calibrated on.",
        f"{_HERE}.drift:drift",
        (
            *(option for option in RANGE if option.name != "order"),
            Option("floor", "Extra error in dB that counts.", default=1.0, least=0),
            Option("deals", "How often images are dealt anew.", int, 150, least=1, most=10_000),
            Option("seed", "Of the deals.", int, 0, least=0, most=MAX_SEED),
            Option(
                "per",
                "A table of linears, or one of their steps too.",
                str,
                "linear",
                choices=("linear", "step"),
            ),
        ),
        whole=True,
        second=True,
        fails=True,
        selects=SELECTION,
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
    "frontier": Analysis(
        "Quality against average bits, and the best format for every linear under a budget.",
        f"{_HERE}.frontier:frontier",
        (
            Option(
                "formats",
                "A format to choose from, as sensitivities have it. Repeatable [default: all of"
                " weights].",
                "word",
                (),
                many=True,
                flag="format",
            ),
            Option(
                "average",
                "Budget of the allocation: average bits of a weight, scales and biases counted.",
                least=0,
                most=32,
                above=True,
            ),
            Option(
                "budgets",
                "A budget of the table. Repeatable [default: half bits].",
                default=(),
                least=0,
                most=32,
                above=True,
                many=True,
                flag="budget",
            ),
            Option(
                "score",
                "Choose by a static score instead of sensitivities, and say so.",
                str,
                choices=SCORES,
            ),
            Option(
                "keep_float", "Linears may stay as they are.", bool, True, flag="float/no-float"
            ),
            Option("fused", "q, k and v of a tensor have one format.", bool, False),
        ),
        whole=True,
        pastes=("allocation", "mlx", "modelopt", "comfy", "quant-config"),
    ),
    "policy": Analysis(
        "Which first and last steps to protect, by what quantizing inputs at each step does.",
        f"{_HERE}.policy:policy",
        (
            Option(
                "format",
                "Of inputs at the other steps, like a4-static [default: the one measured].",
                "word",
            ),
            Option("protect", "Protected steps of the policy.", int, 6, least=0, most=1000),
            Option("max_first", "Most first steps.", int, 6, least=0, most=1000),
            Option("max_last", "Most last steps.", int, 6, least=0, most=1000),
            Option(
                "protect_bits",
                "Of inputs at protected steps; 16: as they are.",
                int,
                16,
                least=2,
                most=16,
            ),
            Option("static", "Use statistics even where there are sensitivities.", bool, False),
        ),
        whole=True,
        pastes=("policy", "quant-config"),
    ),
    "ranks": Analysis(
        "Which static scores rank linears, blocks or steps as measured sensitivities do.",
        f"{_HERE}.ranks:ranks",
        (
            Option(
                "unit",
                "Of the sensitivities [default: all that are there].",
                str,
                choices=("linear", "block", "site", "step"),
            ),
            Option(
                "formats",
                "A format of the sensitivities. Repeatable [default: all that are there].",
                "word",
                (),
                many=True,
                flag="format",
            ),
            Option(
                "trust", "Least rank correlation of a trusted score.", default=0.8, least=0, most=1
            ),
            Option(
                "draws", "Draws of targets, for the interval.", int, 2000, least=1, most=1_000_000
            ),
            Option("seed", "Of the draws.", int, 0, least=0, most=MAX_SEED),
            Option("by_site", "Rank linears of each site among themselves too.", bool, False),
            Option("values", "Print what is ranked too, target by target.", bool, False),
        ),
        whole=True,
    ),
    "overflow": Analysis(
        "First value that is no number; least headroom to float16, fp8, int8 sums and more.",
        f"{_HERE}.overflow:overflow",
        (
            Option(
                "to",
                "Format whose headroom makes a verdict. Repeatable.",
                str,
                ("float16",),
                choices=HEADROOMS,
                many=True,
            ),
            Option("min_headroom", "Least ratio of the limit to the values.", default=1.0, least=0),
            Option(
                "accumulator_bits",
                "Integer that int8 products are summed in.",
                int,
                32,
                least=16,
                most=64,
            ),
        ),
        whole=True,
        fails=True,
        selects=SELECTION,
    ),
}


def of_row(name: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator of an analysis: what its row says of its options is checked."""
    return asked(lambda: ANALYSES[name].options, name)
