"""Allocations as Python that other tools' users paste: MLX, ModelOpt, ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import xarray as xr

from taqstore.errors import MisuseError, problem
from taqstore.export.pasted.allocated import allocated
from taqstore.kinds.formats.weight_formats import FLOAT, grid_of
from taqstore.names import LayerName, checkpoint_tensor, diffusers_module, path_in_model
from taqstore.quantization.integer_grid import MLX_BITS, MLX_GROUPS

Groups = Mapping[str, xr.Dataset]
# MLX packs linears; the patch embedder is a convolution.
_CONVOLUTION = "embed.image"


def mlx(groups: Groups, result: xr.Dataset) -> str:
    """`QUANTIZATION` and `class_predicate` for `mlx.nn.quantize`, under DiffusionKit's names.

    Raises
    ------
    MisuseError
        A format has groups or bits that MLX does not pack.
    """
    found = allocated(result)
    packed, left = {}, []
    for name, format in found.items():
        if format == FLOAT or name.site == _CONVOLUTION:
            left.append(name.full)
            continue
        grid = grid_of(groups, format, name)
        if grid.float8 or grid.group_size not in MLX_GROUPS or grid.bits not in MLX_BITS:
            what = f"MLX does not pack {name.full} in {format}"
            remedy = "groups of 32, 64 or 128 of 2 to 6 or 8 bits: measure --format mlx-w4-g64"
            raise MisuseError(problem(what, remedy=remedy))
        packed[path_in_model(name)] = {"group_size": grid.group_size, "bits": grid.bits}
    kept = f"\n# As they are: {', '.join(left)}." if left else ""
    return f"""{_head(result, "MLX: nn.quantize(model, class_predicate=class_predicate)")}{kept}
QUANTIZATION = {_lines(packed)}


def class_predicate(path, module):
    return QUANTIZATION.get(path, False)
"""


def modelopt(groups: Groups, result: xr.Dataset) -> str:
    """`CONFIG` for `modelopt.torch.quantization.quantize`, under diffusers' names.

    Weights alone: all quantizers are off, then those of the linears that are quantized are on.
    """
    entries: list[dict[str, Any]] = [{"quantizer_name": "*", "enable": False}]
    for name, format in allocated(result).items():
        if format == FLOAT:
            continue
        grid = grid_of(groups, format, name)
        own = {"axis": 0} if grid.group_size is None else {"block_sizes": {-1: grid.group_size}}
        entries.append({
            "quantizer_name": f"*{diffusers_module(name)}.weight_quantizer",
            "cfg": {"num_bits": grid.bits, **own},
            "enable": True,
        })  # fmt: skip
    head = _head(result, "ModelOpt: mtq.quantize(pipe.transformer, CONFIG, forward_loop)")
    return f'{head}\nCONFIG = {{"algorithm": "max", "quant_cfg": {_lines(entries)}}}\n'


def comfy(groups: Groups, result: xr.Dataset) -> str:
    """`INCLUDE` and `EXCLUDE`: layers of an SD3 checkpoint that are quantized, and those that stay.

    Checkpoints have q, k and v as one layer: it stays unless all three are quantized.
    """
    del groups
    layers: dict[str, bool] = {}
    for name, format in allocated(result).items():
        whole = LayerName(name.block, name.stream, name.site)
        layer = checkpoint_tensor(whole).removesuffix(".weight")
        layers[layer] = layers.get(layer, True) and format != FLOAT
    include = [layer for layer, quantized in layers.items() if quantized]
    exclude = [layer for layer, quantized in layers.items() if not quantized]
    head = _head(result, "ComfyUI: layers of the checkpoint that are quantized, and that stay")
    return f"{head}\nINCLUDE = {_lines(include)}\nEXCLUDE = {_lines(exclude)}\n"


def _head(result: xr.Dataset, use: str) -> str:
    return "\n".join(f"# {line}" for line in (use, *_about(result)))


def _about(result: xr.Dataset) -> Iterator[str]:
    row = result.sel(budget=result.attrs["average"])
    yield f"{float(row['average_bits']):.6g} bits a weight ({result.attrs['bits_counted']})"
    if "predicted_error" in row:
        yield f"predicted relative error of the final latent: {float(row['predicted_error']):.4g}"
    yield f"chosen by {result.attrs['basis']}"


def _lines(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """A dict or a list as Python, an entry a line."""
    if isinstance(value, Mapping):
        return "".join(["{\n", *(f"    {k!r}: {v!r},\n" for k, v in value.items()), "}"])
    return "".join(["[\n", *(f"    {item!r},\n" for item in value), "]"])
