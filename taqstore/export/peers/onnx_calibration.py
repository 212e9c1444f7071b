"""ONNX Runtime's calibration ranges, as `onnxruntime.quantization` saves and loads them."""

from __future__ import annotations

from typing import Any

import numpy as np

from taqstore.analysis.ranges.clip import clip_range
from taqstore.analysis.scales import checked_scheme
from taqstore.export.documents.clips import ClipBound
from taqstore.export.peers.static import by_linear, sites_of
from taqstore.files.documents import Document
from taqstore.query.sites import Groups

_NAME = "onnx-calibration"
# Where ONNX Runtime has no method of the name, ranges are said to be given as they are.
_METHODS = {"percentile": "Percentile", "mean_percentile": "Percentile", "entropy": "Entropy"}
_OTHERS = "MinMax"


def onnx_calibration(
    store: Groups,
    *,
    bound: ClipBound | None = None,
    symmetric: bool | None = None,
    source: str | None = None,
) -> Document:
    """Document that `onnxruntime.quantization.calibrate.load_tensors_data` reads.

    A `TensorsData`: per linear a `TensorData` with `lowest` and `highest`, float32, over all steps
    and batches: ranges in ONNX Runtime are static. Its member `data` alone is the table that
    `write_calibration_table` saves as `calibration.json`. Tensors are named as the linears whose
    input they are; rename them to those of your graph.

    Parameters
    ----------
    store
        Group path -> Dataset.
    bound
        How ranges are chosen, as by `analysis.scales` for all steps together; by default the
        extrema (method MinMax).
    symmetric
        Ranges ``(-alpha, alpha)``; by default where the rule reads histograms, as ONNX Runtime's
        own percentile and entropy calibrators give them.
    source
        Group prefix; by default observations, else pooled statistics.

    Raises
    ------
    MissingError
        The statistics lack what the rule needs.
    """
    bound = bound or ClipBound("absmax")
    rule = bound.rule
    balanced = rule.row.needs == "histogram" if symmetric is None else symmetric
    scheme = checked_scheme(bound.bits, balanced, False)
    data: dict[str, Any] = {}
    for site, dataset in sites_of(store, source).items():
        bounds = clip_range(dataset, rule, scheme, static=True, analysis=_NAME)
        for name, (low, high) in by_linear(site, dataset, bounds):
            entry = {"lowest": _number(low), "highest": _number(high), "CLS": "TensorData"}
            data[name] = entry
    method = f"CalibrationMethod.{_METHODS.get(bound.clip, _OTHERS)}"
    return {
        "CLS": "TensorsData",
        "data": dict(sorted(data.items())),
        "calibration_method": {"CLS": "CalibrationMethod", "value": method},
        "smooth_quant": False,
    }


def _number(value: np.ndarray) -> dict[str, Any]:
    """A 0-d float32 array as ONNX Runtime's encoder writes it; exact as a JSON number."""
    return {"data": float(np.float32(value)), "dtype": "float32", "CLS": "numpy.array"}
