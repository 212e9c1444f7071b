"""The analyses by the words of `taqstore analyze`: `ANALYSES` is the only list of them.

A row names a function and declares its options; subcommands, their help, what `query.analyze` runs
and the table in the documentation are made from it. Functions are named, not imported: this file
costs nothing to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from taqstore.analysis.options import (
    BITS,
    MOMENTUM,
    PERCENTILE,
    RANGE,
    SHIFT_MOMENTUM,
    STATIC_CLIP,
    SYMMETRIC,
    Option,
)
from taqstore.faces import named


@dataclass(frozen=True)
class Analysis:
    """One analysis.

    Parameters
    ----------
    doc
        What it tells, one line.
    function
        ``module:function`` taking one group and options, and `site` where it matters.
    options
        In the order of the help.
    joint
        ``module:function`` for all sites together, where they must be seen so: Datasets by path ->
        results by path.
    bundles
        Parameter of the function -> ``module:class``, made of the options that name the parameter
        as their `bundle`.
    """

    doc: str
    function: str
    options: tuple[Option, ...] = ()
    joint: str = ""
    bundles: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Any:
        """The function."""
        return named(self.function)


_HERE = "taqstore.analysis"
ANALYSES: dict[str, Analysis] = {
    "scales": Analysis(
        "Clip bounds, step sizes and zero points for every step and layer.",
        f"{_HERE}.scales:scales",
        (
            *RANGE,
            Option(
                "per",
                "One range for a tensor, a channel, or --group-size channels.",
                str,
                "tensor",
                choices=("tensor", "channel", "group"),
            ),
            Option("group_size", "With --per group.", int, least=1),
        ),
    ),
    "error": Analysis(
        "Expected quantization error, SQNR and clip loss of a rule, from histograms.",
        f"{_HERE}.error:error",
        RANGE,
    ),
    "curve": Analysis(
        "Expected error over clip ranges, with the range of every rule marked.",
        f"{_HERE}.curve:curve",
        (BITS, SYMMETRIC, PERCENTILE, MOMENTUM),
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
            Option("threshold", "Outliers are wider than this many medians.", default=2.5),
            Option("step", "Step of the rule [default: middle].", int, flag="at-step"),
            Option("top_fraction", "Share of the widest channels, listed besides.", default=0.02),
            Option("spike", "Spikes are wider than this many 99th percentiles.", default=5.0),
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
            Option("a4", "4 bits below this clip bound [default: 6].", bundle="thresholds"),
            Option("a6", "6 bits below this, 8 above [default: 10].", bundle="thresholds"),
            Option("shifted_a4", "The same for mlp.fc2 [default: 5].", bundle="thresholds"),
            Option("shifted_a6", "The same for mlp.fc2 [default: 8].", bundle="thresholds"),
            Option(
                "clip",
                "What the clip bound is taken from.",
                str,
                "absmax",
                choices=("absmax", "p999"),
            ),
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
            Option("cubic_gain", "R2 that degree 3 must gain over 2.", default=0.15, bundle="fit"),
            Option(
                "quartic_gain", "R2 that degree 4 must gain over 3.", default=0.10, bundle="fit"
            ),
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
            Option("count", "Groups [default: by --tolerance].", int, least=1),
            Option(
                "tolerance",
                "Error that groups may add to a range for every step.",
                default=0.05,
                least=0,
            ),
            Option(
                "sigma_edges",
                "Edge between buckets of sigma. Repeatable.",
                default=(0.3, 0.7),
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
            Option("average", "Budget: average bits.", default=6.0),
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
                ".safetensors or .npz of the model [default: weights in STORE, or its model's].",
                "weights",
            ),
            Option("strength", "How much goes to the weights.", default=0.5, least=0, most=1),
            MOMENTUM.but(
                help="With viditq: weight of what came before [default: 0.95].", default=None
            ),
            Option(
                "cuts",
                "Sigma between time ranges (viditq, smoothquant-ranges). Repeatable.",
                default=(),
                many=True,
                flag="cut",
            ),
        ),
    ),
    "order": Analysis(
        "How much EMA shifts and clip bounds move when batches come in another order.",
        f"{_HERE}.order:order",
        (
            SHIFT_MOMENTUM,
            Option("orders", "Orders of batches.", int, 20),
            Option("seed", "Of the random orders.", int, 0),
        ),
    ),
    "diagnostics": Analysis(
        "Medians over channels, share of negative values, widest channels (post-GELU study).",
        f"{_HERE}.diagnostics:diagnostics",
    ),
}
