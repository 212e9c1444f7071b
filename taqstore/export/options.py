"""The options that formats share; those of clip ranges are those of `taqstore analyze scales`."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

from taqstore.analysis.ranges.options import (
    BITS,
    BOUND_BITS,
    CLIP,
    CUTS,
    MOMENTUM,
    ORDER,
    PERCENTILE,
    SOURCE_CLIP,
    SYMMETRIC,
)
from taqstore.analysis.ranges.rules import RULES
from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import FIT, TIERS
from taqstore.export.peers.tensor_names import NAMES
from taqstore.names import ADALN, SITES
from taqstore.quantization.defaults import DAMPING, ScaleDtype

OUTLIERS = Option("outliers", "Add outlier channels.", bool, False)
SOURCE = Option("source", "Group prefix to take statistics from, like pooled/timestep_stats.", str)
BATCH = Option("batch", "Observed batches to use: A:B:S.", str)
INCOMPLETE = Option(
    "allow_incomplete",
    "Leave out, by name, layers without a finite value at some step.",
    bool,
    False,
)
NAMES_OF_TENSORS = Option(
    "names",
    "Names of tensors: of linears, or of an SD3 checkpoint's weights [default: taqstore].",
    str,
    choices=NAMES,
)
NO_SHIFT = Option("no_shift", "Recompute input steps without shifts.", bool, False)
WEIGHT_SET = Option("weights", "Weight set to write [default: the only one].", str)
BASE = Option(
    "base",
    "Checkpoint of the model that the weights complete [default: that of the model STORE names].",
    "base",
)
SCALES = Option(
    "dtype",
    "Of scales: auto is float16 where that loses nothing, else float32.",
    str,
    "auto",
    choices=get_args(ScaleDtype),
)
PACKED_SITES = Option(
    "sites",
    "Of linears to pack; repeatable [default: those of blocks].",
    str,
    (),
    choices=(*SITES, ADALN),
    many=True,
    flag="site",
)
CODES = Option(
    "method",
    "Of codes: by second moments of the store, where it has them, or nearest.",
    str,
    "gptq",
    choices=("gptq", "nearest"),
)
DAMPING_SHARE = Option(
    "damping", "Share of the mean diagonal added to second moments.", float, DAMPING, least=0.0
)
STATISTICS = (BATCH, SOURCE, INCOMPLETE)
"""Of every format that is made of statistics."""


def _of_bound(*options: Option) -> tuple[Option, ...]:
    return tuple(replace(option, bundle="bound") for option in options)


_RULE = (SOURCE_CLIP, PERCENTILE, MOMENTUM, ORDER)
QUANT_CONFIG = (*_of_bound(BITS, *_RULE, CUTS), OUTLIERS, *STATISTICS)
TEMPORAL_ANALYSIS = (*_of_bound(*_RULE, BOUND_BITS, CUTS), *STATISTICS)
TEMPORAL_ANALYSIS_MULTITIER = (*TIERS, *_of_bound(*_RULE, BOUND_BITS), *STATISTICS)
MULTITIER = (*TIERS, *_of_bound(*_RULE, BOUND_BITS), OUTLIERS, *STATISTICS)
LUT_SCHEDULE = TEMPORAL_ANALYSIS
POLY_SCHEDULE = (*(replace(option, when=None) for option in FIT), *LUT_SCHEDULE)
ONNX_CALIBRATION = (
    *_of_bound(CLIP.but(aliases={"p999": "percentile"}), PERCENTILE, MOMENTUM, ORDER, BOUND_BITS),
    SYMMETRIC.but(
        default=None, help="Balanced about 0 or not [default: as ONNX Runtime's method does]."
    ),
    *STATISTICS,
)


def _of_extrema() -> tuple[str, ...]:
    return tuple(name for name, row in RULES.items() if row.needs == "extrema")


ACT_SCALES = (CLIP.but(choices=_of_extrema), MOMENTUM, ORDER, *STATISTICS)

IMATRIX = (NAMES_OF_TENSORS, *STATISTICS)

BUNDLES = {
    "bound": "taqstore.export.documents.clips:ClipBound",
    "fit": "taqstore.analysis.schedule:FitRule",
    "thresholds": "taqstore.analysis.tiers:Thresholds",
}
"""Parameter of a format's function -> what is made of the options that name it as their bundle."""
