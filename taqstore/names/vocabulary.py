"""Groups, dimensions and variables of a store, with what they mean."""

from __future__ import annotations

from typing import NamedTuple

FORMAT_VERSION = 2

LATENTS = "latents"
SAMPLES = "samples"
PICTURES = "pictures"
BLOCKS = "blocks"
ACTIVATIONS = "activations"
CHANNEL_HISTOGRAMS = "channel_histograms"
SECOND_MOMENTS = "second_moments"
TRAJECTORIES = "trajectories"
POOLED = "pooled"
WEIGHTS = "weights"
RECONSTRUCTION = "reconstruction"
SENSITIVITY = "sensitivity"
SCORES = "scores"
PROVENANCE = "provenance"
KINDS = (
    LATENTS,
    PICTURES,
    SAMPLES,
    ACTIVATIONS,
    SECOND_MOMENTS,
    TRAJECTORIES,
    POOLED,
    BLOCKS,
    WEIGHTS,
    RECONSTRUCTION,
    SENSITIVITY,
    SCORES,
)
"""What a data group may be, as its marker says."""
WRITTEN = "written"
# Below a data group: records of its items, as they are committed, and closed many to a file.
ITEMS = "items"
COMMIT = f"{ITEMS}/commit"
RECORD = f"{ITEMS}/record"
COPIES = f"{ITEMS}/coordinates"
"""A second copy of the coordinates, for repair."""


def split_group(path: str) -> tuple[str, str]:
    """Source and site of a group: `pooled/postgelu/mlp.fc2` is `pooled/postgelu` of `mlp.fc2`.

    A group that is not one of several sites (`latents`) has no source.
    """
    source, _, site = path.rpartition("/")
    return source, site


def site_of(path: str) -> str:
    """Site of a group, the last part of its path."""
    return split_group(path)[1]


def kind_of(path: str) -> str:
    """First part of a path: what the groups below it are. `sensitivity/linear/rtn-w4` has three."""
    return path.partition("/")[0]


# One statistic, spelled as its sources do: any of the alternatives, the first complete one counts.
Alternatives = tuple[tuple[str, ...], ...]
EXTREMA: Alternatives = (("min", "max"), ("avg_min", "avg_max"))
MOMENTS: Alternatives = (("mean", "std"), ("mean", "m2", "count"))
BINS: Alternatives = (
    ("histogram", "bin_edges"),
    ("histogram", "bin_left", "bin_right"),
    ("hist_counts", "hist_edges"),
)
CHANNEL_BINS: Alternatives = (("channel_histogram", "bin_left", "bin_right"),)


class Doc(NamedTuple):
    """What a dimension or variable means: a short name, its unit, one sentence."""

    long_name: str
    units: str
    description: str


DIMENSIONS: dict[str, str] = {
    "image": "generated image, labelled by its image id",
    "step": "denoising step, an integer index; sigma and timestep are coordinates of it",
    "height": "row of a latent or a picture",
    "width": "column of a latent or a picture",
    "latent_channel": "channel of the latent",
    "colour": "grey, or red, green, blue; opacity last where there is any",
    "batch": "one observed forward batch: one image at every step unless images were grouped",
    "slot": "position of an image inside a batch; -1 where the batch is smaller",
    "layer": "stream of a block: mm0.img, mm23.txt, uni4; or what a model has but once: x_embedder",
    "projection": "q_proj, k_proj, v_proj, where their statistics differ",
    "bin": "histogram bin, ascending by value",
    "edge": "histogram edge, one more than bins",
    "nonfinite_kind": "nan, +inf, -inf",
    "boundary": "residual stream before block i; the last one is after the last block",
    "row": "classifier-free guidance row: 0 prompt, 1 negative",
    "token": "token of the stream",
    "step_group": "neighbouring steps whose second moments are one sum, from noise to image",
    "channel_block": "run of neighbouring channels; full: one of all",
    "channel_row": "channel of a block, row of its matrix",
    "channel_column": "channel of a block, column of its matrix",
    "channel": "input channel of the linear, or channel of the stream",
    "sample": "row of a shuffled Phase 1 file",
    "prompt_id": "row of a prompt table",
    "pooled_channel": "channel of the pooled conditioning",
    "conditioning_channel": "channel of the token conditioning",
    "power": "power of sigma in a polynomial",
    "out": "output of the linear, a row of its weight",
    "group": "run of neighbouring inputs of a linear that share a weight step",
    "in": "input of the linear, a column of its weight",
    "time_group": "steps that share an activation quantizer, from noise to image",
    "rounding_method": "adaround, rtn (to nearest), clipped (to nearest, least-error clip bound)",
    "inputs": "float (not quantized), first (as the optimisation began), learned (as it ended)",
    "target": "what is quantized alone: a linear, a block, a site, or all linears at one step",
    "iteration": "iteration of the optimiser at which a loss was kept",
    "record": "provenance record, in order of writing",
}

_DIMENSION_ORDER = {dim: place for place, dim in enumerate(DIMENSIONS)}


def dimension_order(dim: str) -> int:
    """Sort key: dimensions as `DIMENSIONS` lists them, others after these."""
    return _DIMENSION_ORDER.get(dim, len(_DIMENSION_ORDER))


VARIABLES: dict[str, Doc] = {
    "x": Doc("value", "", "the tensor itself, as the model saw it"),
    "picture": Doc("picture", "", "decoded final latent, 0 to 255"),
    "written": Doc("completion mask", "", "true once the item is wholly on disk"),
    "prompt": Doc("prompt", "", "text the image was made from"),
    "seed": Doc("seed", "", "random seed of the image's initial noise"),
    "cfg_weight": Doc("guidance weight", "", "classifier-free guidance weight"),
    "sigma": Doc("noise level", "", "sigma of the step, 1 noise to 0 image"),
    "timestep": Doc("model timestep", "", "exact value and dtype the model was given"),
    "is_final": Doc("final latent", "", "true where x is the result, not a model input"),
    "block": Doc("block", "", "transformer block: mm0, uni4"),
    "stream": Doc("stream", "", "img, txt or uni"),
    "min": Doc("minimum", "", "smallest value per channel over tokens and rows"),
    "max": Doc("maximum", "", "largest value per channel over tokens and rows"),
    "count": Doc("count", "", "positions seen per channel"),
    "mean": Doc("mean", "", "mean per channel"),
    "m2": Doc("sum of squared deviations", "", "sum over positions of (x - mean)^2 per channel"),
    "second_moment": Doc("second moment", "", "sum over positions of x x^T, block by block"),
    "channel_sum": Doc("sum", "", "sum over positions of x per channel"),
    "left_out": Doc("positions left out", "", "positions with a NaN or Inf, in no sum or count"),
    "step_group_of": Doc("group of the step", "", "step_group that the step went into"),
    "std": Doc("standard deviation", "", "population standard deviation per channel"),
    "histogram": Doc("histogram", "", "values per bin"),
    "channel_histogram": Doc("channel histogram", "", "values of each channel per bin"),
    "nonfinite": Doc("non-finite values", "", "NaN, +Inf, -Inf seen"),
    "tensor_min": Doc("tensor minimum", "", "minimum over channels of the per-channel statistic"),
    "tensor_max": Doc("tensor maximum", "", "maximum over channels of the per-channel statistic"),
    "tensor_absmax": Doc(
        "tensor absmax", "", "max(|tensor_min|, |tensor_max|) as the source has it"
    ),
    "avg_min": Doc("mean of minima", "", "running float32 mean over images of per-image minima"),
    "avg_max": Doc("mean of maxima", "", "running float32 mean over images of per-image maxima"),
    "shift": Doc("EMA midpoint", "", "0.95-momentum EMA over images of (min+max)/2"),
    "shift_absmax": Doc("absmax of shift", "", "max over channels of |shift|"),
    "hist_counts": Doc("sampled histogram", "", "256-bin counts of sampled rows"),
    "hist_edges": Doc("histogram edges", "", "edges of hist_counts, fixed at the second image"),
    "hist_p999": Doc("99.9th percentile", "", "signed upper tail of hist_counts"),
    "hist_p99": Doc("99th percentile", "", "signed, from hist_counts"),
    "hist_p01": Doc("1st percentile", "", "signed, from hist_counts"),
    "hist_p001": Doc("0.1th percentile", "", "signed lower tail of hist_counts"),
    "n_batches": Doc("batches", "", "images that entered the averages"),
    "has_shift": Doc("has shift", "", "the source held a shift here"),
    "has_hist": Doc("has histogram", "", "the source held a histogram here"),
    "bin_left": Doc("left edge", "", "left edge of a float-bit-prefix bin"),
    "bin_right": Doc("right edge", "", "right edge of a float-bit-prefix bin"),
    "bin_edges": Doc("bin edges", "", "edges of the histogram's bins"),
    "alpha": Doc("clip bound", "", "symmetric clip bound (not a step size)"),
    "scale": Doc("scale as found", "", "clip bound by one writer of configs, step by another"),
    "bits": Doc("bits", "bit", "bit width; 0: none"),
    "factor": Doc("smoothing factor", "", "activations are divided, weights multiplied by it"),
    "step_size": Doc("step size", "", "width of one quantization step"),
    "zero_point": Doc("zero point", "", "integer that stands for 0.0"),
    "coefficient": Doc("coefficient", "", "polynomial coefficient of sigma**power"),
    "degree": Doc("degree", "", "degree of the fitted polynomial"),
    "r2": Doc("coefficient of determination", "", "R^2 of the fit"),
    "shift_coefficient": Doc("shift coefficient", "", "of sigma**power in a shift's polynomial"),
    "shift_degree": Doc("degree of the shift", "", "degree of a shift's polynomial; -1: no shift"),
    "shift_r2": Doc("R^2 of the shift", "", "R^2 of a shift's fit"),
    "cv": Doc("coefficient of variation", "", "population std / mean of alpha over steps"),
    "dtype": Doc("original dtype", "", "dtype the source file held"),
    "output": Doc("block output", "", "output of block i where it differs from the input of i+1"),
    "output_kept": Doc("output kept", "", "true where `output` holds block i's own output"),
    "prompt_index": Doc("prompt index", "", "row of the prompt table a sample belongs to"),
    "conditioning": Doc("token conditioning", "", "token-level text embedding"),
    "pooled_conditioning": Doc("pooled conditioning", "", "pooled text embedding"),
    "weight": Doc("integer weight", "", "weight of a linear in units of step_size"),
    "offset": Doc("offset of the grid", "", "added to weight * step_size; 0 or absent: symmetric"),
    "weight_bits": Doc("weight bits", "bit", "bits of the linear's weight"),
    "linear_error": Doc("linear's error", "", "(w - q) H (w - q)^T, H its input's second moment"),
    "nearest_error": Doc("error of nearest", "", "the same of rounding to nearest on its grid"),
    "moment_block": Doc("block of moments", "", "inputs of a block of H; 1 squares, 0 none"),
    "rounding": Doc("rounding variable", "", "V of AdaRound; a weight is rounded up where V >= 0"),
    "activation_step": Doc("activation step size", "", "step of the linear's input; NaN: none"),
    "activation_zero_point": Doc("activation zero point", "", "integer that stands for 0.0"),
    "activation_bits": Doc("activation bits", "", "bits of the linear's input; 0: not quantized"),
    "activation_shift": Doc("activation shift", "", "subtracted before quantization, then added"),
    "activation_multiplier": Doc("step multiplier", "", "times activation_step in this channel"),
    "sigma_lower": Doc("lower sigma", "", "smallest noise level that belongs to the time group"),
    "sigma_upper": Doc("upper sigma", "", "largest noise level that belongs to the time group"),
    "output_error": Doc("output error", "", "mean squared error of the block's output"),
    "method_error": Doc("error of a rounding", "", "mean squared error of the output, by inputs"),
    "output_power": Doc("output power", "", "mean square of the block's floating-point output"),
    "loss": Doc("reconstruction loss", "", "loss of a minibatch without the rounding term"),
    "rounding_loss": Doc("rounding loss", "", "rounding regulariser, weighted as in the sum"),
    "iterations": Doc("iterations", "", "iterations that were run, before a plateau or the end"),
    "seconds": Doc("time", "s", "wall time of the block's optimisation"),
    "delta": Doc("change of the final latent", "", "final latent minus that of the float model"),
    "latent_norm": Doc("norm of the latent", "", "root of the sum of squares, float final latent"),
    "latent_error": Doc("latent error", "", "norm of delta by latent_norm"),
    "cosine": Doc("cosine", "", "of the final latent with that of the float model"),
    "worst_cosine": Doc("worst cosine", "", "least cosine over steps, of latents"),
    "worst_error": Doc("worst error", "", "largest relative error over steps, of latents"),
    "worst_step": Doc("worst step", "", "step of the latent with the largest relative error"),
    "weights": Doc("weights changed", "", "weights of the target that are quantized; 0: inputs"),
    "input_channels": Doc("inputs changed", "", "channels of inputs quantized, over its linears"),
    "weight_absmax": Doc(
        "weight absmax", "", "largest absolute weight of a target, or of an input channel"
    ),
    "weight_kurtosis": Doc("weight kurtosis", "", "fourth moment by squared variance; normal: 3"),
    "weight_power": Doc("weight power", "", "sum of squares of the target's weights"),
    "weight_error": Doc("weight error", "", "sum of squares of the change of weights"),
    "weight_sqnr": Doc("weight SQNR", "dB", "10 log10 of weight_power by weight_error"),
    "imatrix_error": Doc("imatrix error", "", "squared change of weights by mean square of inputs"),
    "imatrix_power": Doc("imatrix power", "", "squared weights by mean square of inputs"),
    "moment_error": Doc("second-moment error", "", "mean over positions of |dW x|^2, summed"),
    "json": Doc("record", "", "one provenance record as JSON"),
}
