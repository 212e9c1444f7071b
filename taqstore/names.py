"""Names used in stores: groups, dimensions, variables, sites and layers, each defined once.

A *layer* is one stream of one block (`mm0.img`, `uni4`); a *site* is which tensor of it was seen
(`attn.qkv`, `attn.o_proj`, `mlp.fc1`, `mlp.fc2`: inputs of linears). q, k and v read one tensor, so
they share the site `attn.qkv` and are told apart by `projection`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from taqstore.errors import MissingError, problem

FORMAT_VERSION = 1

LATENTS = "latents"
SAMPLES = "samples"
BLOCKS = "blocks"
ACTIVATIONS = "activations"
CHANNEL_HISTOGRAMS = "channel_histograms"
POOLED = "pooled"
WEIGHTS = "weights"
RECONSTRUCTION = "reconstruction"
PROVENANCE = "provenance"
WRITTEN = "written"

SITES = ("attn.qkv", "attn.o_proj", "mlp.fc1", "mlp.fc2")
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
STREAMS = ("img", "txt", "uni")

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
    "height": "latent row",
    "width": "latent column",
    "latent_channel": "channel of the latent",
    "batch": "one observed forward batch: one image at every step unless images were grouped",
    "slot": "position of an image inside a batch; -1 where the batch is smaller",
    "layer": "stream of a block: mm0.img, mm23.txt, uni4",
    "projection": "q_proj, k_proj, v_proj, where their statistics differ",
    "bin": "histogram bin, ascending by value",
    "edge": "histogram edge, one more than bins",
    "nonfinite_kind": "nan, +inf, -inf",
    "boundary": "residual stream before block i; the last one is after the last block",
    "row": "classifier-free guidance row: 0 prompt, 1 negative",
    "token": "token of the stream",
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
    "iteration": "iteration of the optimiser at which a loss was kept",
    "record": "provenance record, in order of writing",
}

_DIMENSION_ORDER = {dim: place for place, dim in enumerate(DIMENSIONS)}


def dimension_order(dim: str) -> int:
    """Sort key: dimensions as `DIMENSIONS` lists them, others after these."""
    return _DIMENSION_ORDER.get(dim, len(_DIMENSION_ORDER))


VARIABLES: dict[str, Doc] = {
    "x": Doc("value", "", "the tensor itself, as the model saw it"),
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
    "step_size": Doc("step size", "", "width of one quantization step"),
    "zero_point": Doc("zero point", "", "integer that stands for 0.0"),
    "coefficient": Doc("coefficient", "", "polynomial coefficient of sigma**power"),
    "degree": Doc("degree", "", "degree of the fitted polynomial"),
    "r2": Doc("coefficient of determination", "", "R^2 of the fit"),
    "cv": Doc("coefficient of variation", "", "population std / mean of alpha over steps"),
    "dtype": Doc("original dtype", "", "dtype the source file held"),
    "output": Doc("block output", "", "output of block i where it differs from the input of i+1"),
    "output_kept": Doc("output kept", "", "true where `output` holds block i's own output"),
    "prompt_index": Doc("prompt index", "", "row of the prompt table a sample belongs to"),
    "conditioning": Doc("token conditioning", "", "token-level text embedding"),
    "pooled_conditioning": Doc("pooled conditioning", "", "pooled text embedding"),
    "weight": Doc("integer weight", "", "weight of a linear in units of step_size"),
    "rounding": Doc("rounding variable", "", "V of AdaRound; a weight is rounded up where V >= 0"),
    "activation_step": Doc("activation step size", "", "step of the linear's input; NaN: none"),
    "activation_zero_point": Doc("activation zero point", "", "integer that stands for 0.0"),
    "activation_bits": Doc("activation bits", "", "bits of the linear's input; 0: not quantized"),
    "activation_shift": Doc("activation shift", "", "subtracted before quantization, then added"),
    "activation_multiplier": Doc("step multiplier", "", "times activation_step in this channel"),
    "sigma_lower": Doc("lower sigma", "", "smallest noise level that belongs to the time group"),
    "output_error": Doc("output error", "", "mean squared error of the block's output"),
    "output_power": Doc("output power", "", "mean square of the block's floating-point output"),
    "loss": Doc("reconstruction loss", "", "loss of a minibatch without the rounding term"),
    "rounding_loss": Doc("rounding loss", "", "rounding regulariser, weighted as in the sum"),
    "iterations": Doc("iterations", "", "iterations that were run, before a plateau or the end"),
    "seconds": Doc("time", "s", "wall time of the block's optimisation"),
    "json": Doc("record", "", "one provenance record as JSON"),
}


@dataclass(frozen=True, order=True)
class LayerName:
    """Identity of one linear input (or of a whole layer where `site` is empty)."""

    block: str
    stream: str
    site: str = ""
    projection: str = ""

    @property
    def layer(self) -> str:
        """Coordinate value of the `layer` dimension: `mm0.img`, `uni4`."""
        return self.block if self.stream == "uni" else f"{self.block}.{self.stream}"

    @property
    def full(self) -> str:
        """Canonical full name: `mm0.img.mlp.fc2`, `mm0.img.attn.k_proj`, `mm0.img.attn.qkv`."""
        if not self.site:
            return self.layer
        section, part = self.site.split(".")
        return f"{self.layer}.{section}.{self.projection or part}"

    @property
    def sort_key(self) -> tuple[bool, int, int]:
        """Order of layers in a store: multimodal before unified, by block, img before txt."""
        kind = self.block.rstrip("0123456789")
        return kind == "uni", int(self.block[len(kind) :]), STREAMS.index(self.stream)


_PARTS: dict[str, tuple[str, str]] = {
    **{f"{p}_proj": ("attn.qkv", f"{p}_proj") for p in "qkv"},
    **dict.fromkeys(("qkv", "qkv_in"), ("attn.qkv", "")),
    **dict.fromkeys(("o_proj", "oproj", "o_in"), ("attn.o_proj", "")),
    **dict.fromkeys(("fc1", "fc1_in"), ("mlp.fc1", "")),
    **dict.fromkeys(("fc2", "fc2_in"), ("mlp.fc2", "")),
}
_STREAMS = {"img": "img", "image": "img", "txt": "txt", "text": "txt"}
_PATTERN = re.compile(
    r"(?P<kind>mm|uni|blocks)(?P<tracer>_?)(?P<index>\d{1,4})"
    r"(?:_(?P<stream>img|image|txt|text)(?:_transformer_block)?)?"
    r"(?:_(?P<section>attn|mlp)(?=_))?"
    rf"(?:_(?P<part>{'|'.join(_PARTS)}))?"
)


def parse_layer(name: str) -> LayerName:
    """Resolve any known spelling of a layer or linear to its identity.

    `mm0.img.mlp.fc2`, `mm0_img_mlp_fc2`, `mm_00_img` (= fc2 input), `mm_00_img:fc2_in`,
    `mm_00_img_oproj`, `mm0.image_transformer_block.mlp.fc2`, `blocks.0.image.mlp.fc2` all work, and
    so does a bare layer (`mm0.img`, `uni4`), whose `site` is empty.

    Raises
    ------
    MissingError
        The spelling is not known.
    """
    match = _PATTERN.fullmatch(re.sub(r"[./:]", "_", name))
    if match is None:
        raise _unknown(name)
    kind, part = match["kind"], match["part"]
    block = f"{'uni' if kind == 'uni' else 'mm'}{int(match['index'])}"
    stream = "uni" if kind == "uni" else _STREAMS.get(match["stream"] or "", "")
    if not stream or (kind == "uni" and match["stream"]):
        raise _unknown(name)
    site, projection = _PARTS[part] if part else ("", "")
    if not part and kind != "blocks" and match["tracer"]:
        site = "mlp.fc2"  # the Phase 2 tracer saw only post-GELU tensors and left the site unsaid
    if match["section"] and not site.startswith(match["section"]):
        raise _unknown(name)
    return LayerName(block, stream, site, projection)


def _unknown(name: str) -> MissingError:
    return MissingError(
        problem(
            f"layer name {name!r} is not known",
            remedy="write it like mm0.img.mlp.fc2, mm0.txt.attn.k_proj or uni4.attn.o_proj",
        )
    )


def linear_names(layer: LayerName) -> tuple[str, ...]:
    """Full names of the linears that read this tensor: three for `attn.qkv`, one otherwise."""
    if layer.site != "attn.qkv" or layer.projection:
        return (layer.full,)
    return tuple(LayerName(layer.block, layer.stream, layer.site, p).full for p in PROJECTIONS)
