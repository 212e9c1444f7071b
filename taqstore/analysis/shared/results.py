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
    "median_range": Doc(
        "median range", "", "median over channels of range; of diagnostics over steps as well"
    ),
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
    "energy": Doc("energy", "", "mean over positions of the sum over channels of x^2"),
    "effective_rank": Doc(
        "effective rank", "", "exp of the entropy of the second moment's eigenvalues"
    ),
    "participation_ratio": Doc(
        "participation ratio", "", "squared sum of eigenvalues over the sum of their squares"
    ),
    "top_share": Doc("share of the top", "", "share of the energy in the largest directions"),
    "mean_correlation": Doc("mean correlation", "", "mean |correlation| of pairs of channels"),
    "max_correlation": Doc("largest correlation", "", "largest |correlation| of two channels"),
    "tensor_range": Doc("tensor range", "", "tensor maximum minus tensor minimum"),
    "tensor_mean": Doc("tensor mean", "", "mean over all values of the tensor"),
    "tensor_std": Doc("tensor standard deviation", "", "population std over all values"),
    "slope": Doc("slope", "per unit sigma", "least-squares slope of the quantity against sigma"),
    "correlation": Doc("correlation", "", "Pearson correlation of the quantity with sigma"),
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
    "tail_ratio": Doc("tail ratio", "", "99th percentile of channel ranges over their median"),
    "is_spike": Doc("spike", "", "channel range far beyond the 99th percentile of channel ranges"),
    "spike_count": Doc("spikes", "", "number of channels that are spikes"),
    "step_jaccard": Doc("stability over steps", "", "mean Jaccard index of outlier sets of steps"),
    "batch_jaccard": Doc(
        "stability over batches", "", "mean Jaccard index of outlier sets of batches"
    ),
    "per_step_error": Doc("error per step", "", "expected squared error, a clip bound per step"),
    "static_error": Doc("static error", "", "expected squared error, one clip bound for all steps"),
    "static_cost": Doc("cost of a static bound", "", "static_error over per_step_error, summed"),
    "lut_r2": Doc("R^2 of the table", "", "of inner steps interpolated from their neighbours"),
    "lut_error": Doc("error of the table", "", "largest relative error of such an interpolation"),
    "activation_absmax": Doc("activation absmax", "", "absmax, or salience, the factor is made of"),
    "balanced_absmax": Doc("balanced absmax", "", "activation_absmax / factor"),
    "weight_absmax": Doc("weight absmax", "", "absmax over outputs of an input channel's weights"),
    "range_sigma_low": Doc("lower sigma", "", "smallest sigma of the time range"),
    "range_sigma_high": Doc("upper sigma", "", "largest sigma of the time range"),
    "rank_correlation": Doc("rank correlation", "", "Spearman, of activation and weight absmax"),
    "forward_weight": Doc("weight of the forward", "", "share of the forward in the salience"),
    "step_weight": Doc("weight of the step", "", "share of the step in the salience"),
    "shift_spread": Doc("spread of the shift", "", "largest minus smallest shift over orders"),
    "shift_spread_share": Doc("share of the range", "", "shift_spread / range of the channel"),
    "shift_spread_share_max": Doc("largest share", "", "over channels of shift_spread_share"),
    "shift_spread_share_mean": Doc("mean share", "", "over channels of shift_spread_share"),
    "alpha_low": Doc("lowest clip bound", "", "smallest over orders of batches"),
    "alpha_high": Doc("highest clip bound", "", "largest over orders of batches"),
    "alpha_spread_share": Doc("spread of the bound", "", "(alpha_high - alpha_low) / alpha"),
    "range_ratio": Doc("ratio of ranges", "", "tensor range, second store over first"),
    "alpha_ratio": Doc("ratio of absmax", "", "tensor absmax, second store over first"),
    "channel_range_log2": Doc("channel ranges", "", "largest |log2| of the ratio of ranges"),
    "shift_drift": Doc("drift of the shift", "", "largest move as a share of the channel range"),
    "jensen_shannon": Doc("Jensen-Shannon divergence", "bit", "of the two histograms, 0 to 1"),
    "wasserstein": Doc("1-Wasserstein distance", "", "of the two histograms, unit of the values"),
    "wasserstein_share": Doc("share of the range", "", "wasserstein / tensor range of the first"),
    "calibrated_sqnr": Doc("SQNR of the calibration", "dB", "first store, its own quantizers"),
    "own_sqnr": Doc("own SQNR", "dB", "second store under quantizers of its own"),
    "drifted_sqnr": Doc("SQNR as calibrated", "dB", "second store under the first's quantizers"),
    "extra_error": Doc("extra error", "dB", "own_sqnr - drifted_sqnr"),
    "usual_extra_error": Doc("usual extra error", "dB", "mean over other deals of the images"),
    "most_extra_error": Doc("most extra error", "dB", "the most in another deal of the images"),
    "recalibrate": Doc("to recalibrate", "", "extra error that chance does not explain"),
    "drifted": Doc("drifted", "", "whether any linear is to be recalibrated"),
    "linears": Doc("linears", "", "that both stores have"),
    "linears_to_recalibrate": Doc("linears to recalibrate", "", "number of them"),
    "mean_extra_error": Doc("mean extra error", "dB", "mean over linears of extra_error"),
    "worst_extra_error": Doc("worst extra error", "dB", "largest over linears of extra_error"),
    "deals": Doc("deals", "", "other deals of the images that were looked at"),
    "first_images": Doc("images of the first", "", "images of the first store that were dealt"),
    "second_images": Doc("images of the second", "", "images of the second store, dealt"),
    "basis": Doc("basis of the verdict", "", "deals of images, or the floor alone and why"),
    "difference_max": Doc("largest difference", "", "of |second - first|"),
    "difference_mean": Doc("mean difference", "", "of |second - first|"),
    "error": Doc("expected error", "", "mean squared error of quantizing, from the histogram"),
    "clip_loss": Doc("clip loss", "", "part of the error from values beyond the outermost levels"),
    "sqnr": Doc("SQNR", "dB", "10 log10(mean square of the values / expected error)"),
    "clip_lower": Doc("lower bound", "", "lower end of the clip range tried"),
    "clip_upper": Doc("upper bound", "", "upper end of the clip range tried"),
    "clip_error": Doc("expected error", "", "mean squared error at the clip range tried"),
    "rule_lower": Doc("lower bound", "", "lower end of the rule's range"),
    "rule_upper": Doc("upper bound", "", "upper end of the rule's range"),
    "rule_error": Doc("expected error", "", "mean squared error at the rule's range"),
    "optimal_error": Doc("error of the best groups", "", "least over contiguous groups of steps"),
    "cluster_error": Doc("error of clusters", "", "of groups by adjacency-constrained clustering"),
    "sigma_error": Doc("error of sigma buckets", "", "of groups by fixed buckets of sigma"),
    "group": Doc("group", "", "number of the group of steps, from 0; -1 unknown"),
    "group_count": Doc("groups", "", "number of groups of steps"),
    "allocated_error": Doc("allocated error", "", "expected error at the bits chosen"),
    "choice_error": Doc("error by bits", "", "least expected error at every bit width"),
    "step_mean": Doc("median mean of the step", "", "median over channels of the mean"),
    "step_std": Doc("median std of the step", "", "median over channels of the population std"),
    "step_range": Doc("median range of the step", "", "median over channels of range"),
    "median_mean": Doc("median mean", "", "mean over steps of the median over channels of mean"),
    "median_std": Doc("median std", "", "mean over steps of the median over channels of std"),
    "max_range": Doc("largest range", "", "largest range over steps and channels"),
    "widest_steps": Doc("steps among the widest", "", "steps at which the channel is_widest"),
    "widest_overall": Doc("widest of all steps", "", "is_widest by the range over all steps"),
    "negative_fraction": Doc("negative share", "", "share of counted values below zero"),
    "negative_fraction_all": Doc("negative share", "", "negative_fraction of all steps together"),
    "counted": Doc("counted values", "", "values in the histogram"),
    "difference_relative": Doc("relative difference", "", "norm of second - first / norm of first"),
}


# What a histogram cannot be read without.
_BINS = ("layout", "mantissa_bits")


def document(result: xr.Dataset) -> xr.Dataset:
    """Give every variable its long_name, units and description, in place of inherited ones."""
    for name, variable in result.data_vars.items():
        doc = RESULTS.get(str(name)) or VARIABLES[str(name)]
        units = {"units": doc.units} if doc.units else {}
        bins = {key: variable.attrs[key] for key in _BINS if key in variable.attrs}
        variable.attrs = {
            "long_name": doc.long_name,
            "description": doc.description,
            **units,
            **bins,
        }
    return result
