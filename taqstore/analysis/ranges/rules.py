"""The rules that choose a clip range: `RULES` is the only list of them.

A rule is one function and one row here. The row says what the rule needs and which options it
takes; choices and help of the command line, refusals, the marks of `plot curve`, the comparison of
`report` and the table in the documentation are made from it. Functions are named, not imported:
this file costs nothing to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from taqstore.faces import named

Rule: TypeAlias = str
"""A key of `RULES`."""


@dataclass(frozen=True)
class ClipRule:
    """One rule.

    Parameters
    ----------
    doc
        What the range is, one line.
    label
        The same in a few words, with the options at their defaults.
    function
        ``module:function``, called ``f(dataset, clip, scheme, *, static, analysis) -> Bounds``: see
        `clip.clip_range`, which balances the range where the scheme is symmetric.
    needs
        `extrema`, which groups have per channel, or `histogram`, which they have per tensor.
    options
        Fields of `clip.Clip` that it takes, besides those that say what a range is for.
    mark
        Shape and colour in figures; None where they would hide another rule's mark.
    compared
        Whether `report` prices it; that takes a pass over all histograms.
    by_bits
        Whether the range depends on the bit width.
    merges
        Whether it asks statistics that are merged over batches, and not these one by one.
    """

    doc: str
    label: str
    function: str
    needs: Literal["extrema", "histogram"]
    options: tuple[str, ...] = ()
    mark: tuple[str, str] | None = None
    compared: bool = False
    by_bits: bool = False
    merges: bool = True

    def load(self) -> Any:
        """The function."""
        return named(self.function)


_EXTREMA = "taqstore.analysis.ranges.from_extrema"
_POOLED = "taqstore.analysis.pooling"
_HISTOGRAM = "taqstore.analysis.ranges.from_histogram"

# Colours by Okabe and Ito; shapes tell the rules apart without them.
RULES: dict[str, ClipRule] = {
    "absmax": ClipRule(
        "the extrema",
        "largest |x|",
        f"{_EXTREMA}:extrema",
        "extrema",
        mark=("s", "#000000"),
        compared=True,
    ),
    "minmax": ClipRule(
        "the extrema, under their other name",
        "smallest and largest x",
        f"{_EXTREMA}:extrema",
        "extrema",
    ),
    "average": ClipRule(
        "mean over calls of their extrema (NNCF's mean min-max; what `timestep_stats` stores)",
        "mean of the extrema",
        f"{_EXTREMA}:average",
        "extrema",
        mark=("D", "#0072B2"),
        merges=False,
    ),
    "ema": ClipRule(
        "PyTorch's `MovingAverageMinMaxObserver`, replayed in float32 to the last bit",
        "moving average of the extrema",
        f"{_EXTREMA}:ema",
        "extrema",
        options=("momentum", "order"),
        mark=("v", "#56B4E9"),
        merges=False,
    ),
    "tensor_absmax": ClipRule(
        "the absmax of `timestep_stats`: of channel extrema that are averaged over batches",
        "absmax of averaged extrema",
        f"{_POOLED}:tensor_absmax",
        "extrema",
        merges=False,
    ),
    "hist_p999": ClipRule(
        "the signed 99.9th percentile of `timestep_stats` where there is one, else `tensor_absmax`",
        "the source's 99.9th percentile",
        f"{_POOLED}:hist_p999",
        "histogram",
        merges=False,
    ),
    "percentile": ClipRule(
        "a percentile of |x| (symmetric) or of both tails (affine)",
        "99.9th percentile of |x|",
        f"{_HISTOGRAM}:percentile",
        "histogram",
        options=("percentile",),
        mark=("^", "#E69F00"),
        compared=True,
    ),
    "mean_percentile": ClipRule(
        "mean over calls of their percentiles",
        "mean of the 99.9th percentiles of |x|",
        f"{_HISTOGRAM}:mean_percentile",
        "histogram",
        options=("percentile",),
        mark=("<", "#F0E442"),
        merges=False,
    ),
    "mse": ClipRule(
        "least expected squared error at the bits in question",
        "least expected squared error",
        f"{_HISTOGRAM}:mse",
        "histogram",
        by_bits=True,
        mark=("*", "#D55E00"),
        compared=True,
    ),
    "l2.4": ClipRule(
        "least expected |x - q(x)|^2.4, PyTorch's exponent",
        "least expected |error|^2.4",
        f"{_HISTOGRAM}:l2_4",
        "histogram",
        by_bits=True,
        mark=("P", "#CC79A7"),
    ),
    "entropy": ClipRule(
        "least KL divergence, as TensorRT and ONNX Runtime calibrate",
        "least KL divergence",
        f"{_HISTOGRAM}:entropy",
        "histogram",
        mark=("X", "#009E73"),
    ),
}


def taking(option: str) -> tuple[str, ...]:
    """Names of the rules that take an option."""
    return tuple(name for name, row in RULES.items() if option in row.options)


def by_bits() -> tuple[str, ...]:
    """Names of the rules whose range depends on the bit width."""
    return tuple(name for name, row in RULES.items() if row.by_bits)


def marked() -> tuple[str, ...]:
    """Names of the rules that figures mark."""
    return tuple(name for name, row in RULES.items() if row.mark)


def compared() -> tuple[str, ...]:
    """Names of the rules whose expected errors `report` sets side by side."""
    return tuple(name for name, row in RULES.items() if row.compared)


def without_options() -> tuple[str, ...]:
    """Names of the compared rules that are told by their name alone."""
    return tuple(name for name in compared() if not RULES[name].options)
