"""Rows of the table of analyses that are asked of whole stores: a part of `table.ANALYSES`."""

from __future__ import annotations

from taqstore.analysis.ranges.options import RANGE
from taqstore.analysis.shared.option import Option
from taqstore.analysis.shared.row import SELECTION, Analysis
from taqstore.analysis.shared.score_costs import SCORES
from taqstore.asked import MAX_SEED

_HERE = "taqstore.analysis"
HEADROOMS = ("float16", "bfloat16", "fp8_e4m3", "fp8_e5m2", "int8")
"""Formats of `overflow`; `int8` is the accumulator of a product of int8 integers."""

WHOLE: dict[str, Analysis] = {
    "drift": Analysis(
        "Whether OTHER, a LoRA or another sampler, leaves the range that STORE was calibrated on.",
        f"{_HERE}.drift:drift",
        (
            *(option for option in RANGE if option.name != "order"),
            Option("floor", "Extra error in dB that counts.", default=1.0, least=0),
            Option("deals", "How often images are dealt anew.", int, 400, least=1, most=10_000),
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
        late=True,
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
"""By word."""
