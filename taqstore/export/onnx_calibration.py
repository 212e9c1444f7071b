"""ONNX Runtime's calibration ranges, as `onnxruntime.quantization` saves and loads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.from_histogram import all_steps
from taqstore.analysis.ranges.percentile import absolute_percentile
from taqstore.analysis.shared.inputs import Bounds, observed_histogram, require, tensor_bounds
from taqstore.export.documents.clips import Clip
from taqstore.export.documents.linears import check_clip
from taqstore.export.peers import by_linear, sites_of
from taqstore.files.documents import Document
from taqstore.query.sites import Groups

_NAME = "onnx-calibration"
_METHODS = {"absmax": "MinMax", "p999": "Percentile"}
_PERCENTILE = 99.9


def onnx_calibration(
    store: Groups, *, clip: Clip = "absmax", source: str | None = None
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
    clip
        `absmax`: the extrema (method MinMax). `p999`: the 99.9th percentile of ``|x|``, symmetric
        (method Percentile), from bit histograms of observations.
    source
        Group prefix; by default observations, else pooled statistics.

    Raises
    ------
    MissingError
        There are no extrema, or for `p999` no bit histograms.
    """
    check_clip(clip)
    data: dict[str, Any] = {}
    for site, dataset in sites_of(store, source).items():
        bounds = _percentiles(dataset) if clip == "p999" else _extrema(dataset)
        for name, (low, high) in by_linear(site, dataset, bounds):
            entry = {"lowest": _number(low), "highest": _number(high), "CLS": "TensorData"}
            data[name] = entry
    method = {"CLS": "CalibrationMethod", "value": f"CalibrationMethod.{_METHODS[clip]}"}
    return {
        "CLS": "TensorsData",
        "data": dict(sorted(data.items())),
        "calibration_method": method,
        "smooth_quant": False,
    }


def _extrema(dataset: xr.Dataset) -> Bounds:
    bounds = tensor_bounds(dataset, analysis=_NAME)
    return Bounds(bounds.lower.min("step"), bounds.upper.max("step"))


def _percentiles(dataset: xr.Dataset) -> Bounds:
    if observed_histogram(dataset) is None:
        require(dataset, ("histogram", "batch"), analysis=f"{_NAME} with clip p999")
    alpha = absolute_percentile(all_steps(dataset), _PERCENTILE, analysis=_NAME)
    return Bounds(-alpha, alpha)


def _number(value: np.ndarray) -> dict[str, Any]:
    """A 0-d float32 array as ONNX Runtime's encoder writes it; exact as a JSON number."""
    return {"data": float(np.float32(value)), "dtype": "float32", "CLS": "numpy.array"}
