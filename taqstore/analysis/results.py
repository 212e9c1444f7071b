"""Meaning of the variables that analyses make, and of those they take over from a store."""

from __future__ import annotations

import xarray as xr

from taqstore.names import VARIABLES, Doc

RESULTS: dict[str, Doc] = {
    "lower": Doc("lower bound", "", "lower end of the quantized range"),
    "upper": Doc("upper bound", "", "upper end of the quantized range"),
    "shifted_min": Doc("shifted minimum", "", "minimum per channel after subtracting the shift"),
    "shifted_max": Doc("shifted maximum", "", "maximum per channel after subtracting the shift"),
    "shifted_alpha": Doc("shifted clip bound", "", "absmax over channels after the shift"),
    "range": Doc("range", "", "maximum minus minimum"),
    "median_range": Doc("median range", "", "median over channels of range"),
    "is_outlier": Doc("outlier channel", "", "range exceeds the threshold times the median range"),
    "step_size_normal": Doc("step size of normal channels", "", "their absmax / 127"),
    "step_size_outlier": Doc("step size of outlier channels", "", "their absmax / 127"),
    "multiplier": Doc("multiplier", "", "1, or max(1, round(outlier step / normal step))"),
    "is_widest": Doc("widest channel", "", "among the widest share of channels of its step"),
    "widest_count": Doc("channels ever widest", "", "size of the union over steps of is_widest"),
    "alpha_mean": Doc("mean clip bound", "", "mean over steps of alpha"),
    "alpha_min": Doc("smallest clip bound", "", "minimum over steps of alpha"),
    "alpha_max": Doc("largest clip bound", "", "maximum over steps of alpha"),
    "variability_ratio": Doc("variability ratio", "", "largest alpha / (smallest alpha + 1e-6)"),
    "shift_absmax_mean": Doc("mean shift magnitude", "", "mean over steps of shift_absmax"),
    "shift_absmax_max": Doc("largest shift magnitude", "", "maximum over steps of shift_absmax"),
    "tensor_range": Doc("tensor range", "", "tensor maximum minus tensor minimum"),
    "tensor_mean": Doc("tensor mean", "", "mean over all values of the tensor"),
    "tensor_std": Doc("tensor standard deviation", "", "population std over all values"),
    "slope": Doc("slope", "per unit sigma", "least-squares slope of the quantity against sigma"),
    "correlation": Doc("correlation", "", "Pearson correlation of the quantity with sigma"),
    "bits": Doc("bits", "bit", "bit width chosen by the tier rule"),
    "threshold_bits": Doc("bits by threshold", "bit", "bit width before any SmoothQuant step down"),
    "smoothquant": Doc("SmoothQuant candidate", "", "few channels far above the 99th percentile"),
    "smoothquant_scale": Doc("SmoothQuant factor", "", "absmax^0.5 / (mean(absmax)^0.5 + 1e-8)"),
    "outlier_share": Doc("outlier share", "", "share of channels above the 99th percentile"),
    "spike_ratio": Doc("spike ratio", "", "largest channel absmax / 99th percentile"),
    "high_variability": Doc("high variability", "", "variability ratio above its threshold"),
    "switcher": Doc("switcher", "", "has both 4-bit and 8-bit steps"),
    "shift_benefit": Doc("shift benefit", "", "mean over steps of (|m|-|m-s|) / (|m|+1e-8)"),
    "skewness": Doc("skewness", "", "mean over steps of the histogram's skewness"),
    "effective": Doc("shift effective", "", "shift benefit above its threshold"),
    "fitted": Doc("fitted clip bound", "", "the polynomial at each step's sigma"),
}


def document(result: xr.Dataset) -> xr.Dataset:
    """Give every variable its long_name, units and description, in place of inherited ones."""
    for name, variable in result.data_vars.items():
        doc = RESULTS.get(str(name)) or VARIABLES[str(name)]
        units = {"units": doc.units} if doc.units else {}
        variable.attrs = {"long_name": doc.long_name, "description": doc.description, **units}
    return result
