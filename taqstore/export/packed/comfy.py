"""A checkpoint of SD3 with weights of four bits for ComfyUI, made from its floats and a store.

Codes are chosen by GPTQ where the store has second moments of a linear's input, on the grid that
comfy-kitchen itself would use; a diagonal, of observed activations, does too, for the rotation
makes a full matrix of it. Nothing of the file depends on which: sizes and scales are the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.asked import words_of
from taqstore.errors import MissingError, problem
from taqstore.export.packed.base import Base, array_of
from taqstore.export.packed.sizes import share_of_half
from taqstore.files.safetensors import FLOAT8, Later, write_safetensors
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize
from taqstore.kinds.second_moments import diagonal_of, moments_of
from taqstore.names import ADALN, SITES, LayerName, checkpoint_tensor, weight_layer
from taqstore.quantization.comfy.codebook import GROUP, LEVELS, W4A8, w4a8_gptq, w4a8_nearest
from taqstore.quantization.comfy.rotation import SIZES, rotated_moments, rotation_size
from taqstore.quantization.defaults import DAMPING
from taqstore.quantization.gptq import Prepared, prepare

FORMAT = "asym_w4a8_int8"
PACKABLE = (*SITES, ADALN)
"""Sites whose linears may be packed. ComfyUI tells a model by the shapes of embedders and of the
final layer, and packed ones have others."""

Groups = Mapping[str, xr.Dataset]
_METHODS = {"full": "GPTQ", "diagonal": "GPTQ of a diagonal", "": "rounding to nearest"}


@dataclass(frozen=True)
class _Made:
    """A linear in its layout, and from what its codes were chosen: a key of `_METHODS`."""

    weight: W4A8
    known: str


def comfy_w4a8(
    store: Groups,
    out: Path,
    *,
    base: Base,
    sites: tuple[str, ...] = (),
    method: str = "gptq",
    damping: float = DAMPING,
    force: bool = False,
) -> Summary:
    """Write a checkpoint that ComfyUI (0.31 and later) loads, `asym_w4a8_int8`.

    In the place of ``{name}.weight`` of a linear: ``.weight`` int8 (out, in / 2), two codes a byte;
    ``.weight_s_rel`` float8 (out, in / 16); ``.weight_s_channel`` float32 (out,);
    ``.weight_codebook`` float32 (16,); ``.comfy_quant`` uint8, the JSON ``{"format":
    "asym_w4a8_int8", "group_size": 16, "convrot": true, "convrot_groupsize": 256}``. Inputs that
    256 does not divide are rotated by 64 or 16. All other tensors are those of `base`.

    Parameters
    ----------
    base
        The checkpoint's tensors of the denoiser, floats.
    sites
        Of linears to pack; none: those of blocks. q, k and v are one linear.
    method
        ``gptq`` or ``nearest``: as comfy-kitchen's own quantizer does.
    damping
        As of `quantization.gptq.prepare`.

    Raises
    ------
    MissingError
        The model has no linear of these sites that the layout holds.
    TaqError
        Second moments cannot be rotated, or do not fit.
    """
    wanted = sites or SITES
    words_of(wanted, PACKABLE, "packed site")
    names = {
        name: layer
        for name in base.tensors
        if name.endswith(".weight") and (layer := weight_layer(name)) and layer.site in wanted
    }
    held = {name: layer for name, layer in names.items() if _holds(base, name, layer)}
    if not held:
        what, found = "no linear that can be packed", f"{len(base.tensors)} tensors"
        remedy = "inputs are a multiple of 16, and the checkpoint of SD3"
        raise MissingError(problem(what, found=found, remedy=remedy))
    # One tensor's second moments serve a linear after another: adaLN linears share theirs.
    moments = lru_cache(maxsize=1)(partial(rotated_input, store, damping=damping))
    known = Counter[str]()

    @lru_cache(maxsize=1)
    def made(name: str) -> W4A8:
        found = _packed(base, name, held[name].input, method, moments)
        known[found.known] += 1
        return found.weight

    tensors: dict[str, np.ndarray | Later] = {}
    for name, tensor in base.tensors.items():
        tensors |= dict(_tensors(base, name, made)) if name in held else {name: tensor}
    with whole_file(out, force=force) as fresh:
        write_safetensors(fresh, tensors, format="pt")
    left = [layer.full for name, layer in names.items() if name not in held]
    return summarize(out, *_notes(base, tensors, held, known, left))


def _holds(base: Base, name: str, layer: LayerName) -> bool:
    shape = base.tensors[name].shape
    return (
        len(shape) == 2
        and shape[1] % SIZES[-1] == 0
        and name == checkpoint_tensor(LayerName(layer.block, layer.stream, layer.site))
    )


def rotated_input(
    store: Groups, layer: str, site: str, inputs: int, *, damping: float = DAMPING
) -> tuple[Prepared | None, str]:
    """The second moment of a tensor, rotated and prepared, and whether it is `full` or `diagonal`.

    Its diagonal is that of observed activations; where the store has neither: None and empty.
    """
    size = rotation_size(inputs)
    if (found := moments_of(store, layer, site)) is not None:
        blocks, known = found.blocks, "full"
    elif (diagonal := diagonal_of(store, layer, site)) is not None:
        blocks, known = diagonal, "diagonal"
    else:
        return None, ""
    return prepare(rotated_moments(blocks, inputs, size), damping=damping), known


def _packed(base: Base, name: str, read: LayerName, method: str, moments: Any) -> _Made:
    weight = array_of(base.tensors[name])
    if weight.dtype.names:  # bfloat16, as its bits: the upper half of a float32
        weight = (weight.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    rotation = rotation_size(weight.shape[1])
    prepared, known = None, ""
    if method == "gptq":
        prepared, known = moments(read.layer, read.site, weight.shape[1])
    if prepared is None:
        return _Made(w4a8_nearest(weight, rotation=rotation), "")
    return _Made(w4a8_gptq(weight, prepared, rotation=rotation)[0], known)


def _tensors(base: Base, name: str, made: Any) -> Iterator[tuple[str, np.ndarray | Later]]:
    """What stands in the place of one weight."""
    rows, inputs = base.tensors[name].shape
    settings = {
        "format": FORMAT,
        "group_size": GROUP,
        "convrot": True,
        "convrot_groupsize": rotation_size(inputs),
    }
    eight = (rows, inputs // GROUP)
    yield name, Later(np.dtype(np.int8), (rows, inputs // 2), lambda: made(name).packed())
    yield f"{name}_s_rel", Later(FLOAT8, eight, lambda: made(name).group_scale.view(FLOAT8))
    yield (
        f"{name}_s_channel",
        Later(np.dtype(np.float32), (rows,), lambda: made(name).channel_scale),
    )
    yield f"{name}_codebook", LEVELS
    text = np.frombuffer(json.dumps(settings).encode(), np.uint8)
    yield f"{name.removesuffix('weight')}comfy_quant", text


def _notes(
    base: Base,
    tensors: Mapping[str, np.ndarray | Later],
    held: Mapping[str, LayerName],
    known: Mapping[str, int],
    left: list[str],
) -> Iterator[str]:
    how = ", ".join(f"{known[key]} by {word}" for key, word in _METHODS.items() if key in known)
    whole = share_of_half(sum(tensor.nbytes for tensor in tensors.values()), base.half_bytes)
    packed = sum(prod(base.tensors[name].shape) for name in held)
    share = f"{packed / base.weights:.1%} of the model's weights"
    yield f"{len(held)} linears are packed, {share}: {how}; the model is {whole}"
    if known.get(""):
        yield "without second moments: taqstore collect --second-moment 256 takes them"
    if left:
        yield f"not packed, for their inputs are no multiple of {SIZES[-1]}: {', '.join(left)}"
