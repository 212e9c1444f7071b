"""A whole model with packed weights, as MLX runs it: DiffusionKit's names, `config.json` beside."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, MissingError, problem
from taqstore.export.packed.base import Base
from taqstore.export.packed.sizes import share_of_half
from taqstore.files.safetensors import Later, write_safetensors
from taqstore.files.staged import whole_folder
from taqstore.files.written import Summary, summarize
from taqstore.kinds.quantized_linears import (
    Groups,
    QuantizedLinear,
    linear_names_of,
    quantized_blocks,
    quantized_linear,
    run_of,
)
from taqstore.kinds.weight_sets import chosen_set
from taqstore.names import LayerName, path_in_model
from taqstore.quantization.defaults import ScaleDtype
from taqstore.quantization.packed_affine import (
    Packing,
    check_dtype,
    packed_words,
    packing_of,
)
from taqstore.version import __version__

CONFIG, TENSORS = "config.json", "model.safetensors"
_PARTS = ("weight", "scales", "biases")
CONTENT = "taqstore-mlx"
"""What `config.json` says the folder is, under `content`."""


@dataclass(frozen=True)
class _Plan:
    """One linear: how it is packed, or why it is not."""

    name: LayerName
    path: str
    shape: tuple[int, int]
    bits: int
    packing: Packing | None
    why_not: str = ""


def mlx(
    store: Groups,
    out: Path,
    *,
    base: Base,
    weights: str | None = None,
    dtype: ScaleDtype = "auto",
    force: bool = False,
) -> Summary:
    """Write a folder that `pipelines.models` loads: `config.json` and `model.safetensors`.

    Linears of the weight set are packed as `packed_affine` says: ``{path}.weight`` uint32 (out,
    in * bits / 32), ``.scales`` and ``.biases`` (out, group). A linear whose groups MLX does not
    have, and a convolution, keep floats, those that its integers stand for. All other tensors are
    those of `base`, in their dtype. `config.json` lists bits and group size of every packed linear
    under `quantization`, as `mlx.nn.quantize` wants them from its `class_predicate`.

    Parameters
    ----------
    base
        Every parameter of the model under DiffusionKit's names.
    weights
        Weight set; None: the only one there is.
    dtype
        Of scales and biases; ``auto``: float16 for a linear whose steps float16 holds, so that
        nothing is lost, else float32.

    Raises
    ------
    MissingError
        No linear of the set is complete, or one is not in the model.
    MisuseError
        There are several weight sets and none is named, or no such dtype.
    LayoutError
        A linear does not fit the model, or a scale is beyond `dtype`.
    """
    check_dtype(dtype)
    chosen = chosen_set(store, weights)
    names = linear_names_of(store, set=chosen)
    if not names:
        quantized_blocks(store, set=chosen)  # says what is missing
    plans = [_planned(store, name, chosen, base, dtype) for name in names]
    read = lru_cache(maxsize=1)(partial(quantized_linear, store, set=chosen))
    own = {plan.path: _tensors(plan, read, base) for plan in plans}
    tensors: dict[str, np.ndarray | Later] = {}
    for name, tensor in base.tensors.items():
        path, _, part = name.rpartition(".")
        tensors |= own[path] if part == "weight" and path in own else {name: tensor}
    config = _config(store, chosen, base, plans)
    with whole_folder(out, content=(CONFIG, TENSORS), force=force) as fresh:
        fresh.mkdir()
        write_safetensors(fresh / TENSORS, tensors, format="mlx", content=CONTENT, set=chosen)
        (fresh / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return summarize(out, *_notes(plans, chosen, base, tensors))


def _planned(store: Groups, name: LayerName, chosen: str, base: Base, dtype: ScaleDtype) -> _Plan:
    linear = quantized_linear(store, name, set=chosen)
    shape: tuple[int, int] = linear.weight.shape
    path = path_in_model(name)
    held = base.check_weight(f"{path}.weight", shape, linear=name.full)
    bits = _bits(linear)
    if len(held) != 2:
        return _Plan(name, path, shape, bits, None, "no linear in MLX")
    try:
        packing = packing_of(linear.step, linear.offset, bits=bits, inputs=shape[1], dtype=dtype)
    except LayoutError as error:
        if dtype == "float16":
            raise LayoutError(f"{name.full}: {error}") from error
        return _Plan(name, path, shape, bits, None, str(error))
    return _Plan(name, path, shape, bits, packing)


def _bits(linear: QuantizedLinear) -> int:
    """Its bits; where the set does not say them, those that its integers need."""
    if linear.bits:
        return linear.bits
    low, high = int(linear.weight.min()), int(linear.weight.max())
    return max(2, (-low - 1).bit_length() + 1 if low < 0 else 0, high.bit_length() + 1)


def _tensors(plan: _Plan, read: Any, base: Base) -> dict[str, np.ndarray | Later]:
    """What stands in the place of one weight."""
    if plan.packing is None:
        name = f"{plan.path}.weight"
        shape = tuple(base.tensors[name].shape)
        floats = read(plan.name).dequantized()
        half = bool((floats == floats.astype(np.float16)).all())
        kept = np.dtype(np.float16 if half else np.float32)
        return {
            name: Later(
                kept,
                shape,
                lambda: read(plan.name).dequantized().astype(kept).reshape(shape),
            )
        }
    packing = plan.packing

    def words() -> np.ndarray:
        return packed_words(read(plan.name).weight, bits=plan.bits)

    size = (plan.shape[0], plan.shape[1] * packing.bits // 32)
    return {
        f"{plan.path}.weight": Later(np.dtype(np.uint32), size, words),
        f"{plan.path}.scales": packing.scales,
        f"{plan.path}.biases": packing.biases,
    }


def _config(store: Groups, chosen: str, base: Base, plans: list[_Plan]) -> dict[str, Any]:
    packed = {p.path: _settings(p.packing) for p in plans if p.packing is not None}
    if not packed:
        what, found = f"MLX can pack no linear of {chosen}", plans[0].why_not
        raise MissingError(problem(what, found=found))
    usual = Counter(tuple(settings.items()) for settings in packed.values()).most_common(1)[0][0]
    return {
        "content": CONTENT,
        "taqstore": __version__,
        "model": base.model,
        "base": base.digest,
        "set": chosen,
        "run": run_of(store, chosen),
        "quantization": {**dict(usual), **packed},
    }


def _settings(packing: Packing) -> dict[str, int]:
    return {"group_size": packing.group_size, "bits": packing.bits}


def _notes(
    plans: list[_Plan], chosen: str, base: Base, tensors: Mapping[str, np.ndarray | Later]
) -> list[str]:
    packed = [plan for plan in plans if plan.packing is not None]
    held = sum(plan.shape[0] * plan.shape[1] for plan in packed)
    own = sum(tensors[f"{plan.path}.{part}"].nbytes for plan in packed for part in _PARTS)
    size = f"{own / held / 2:.3f} of their float16 size"
    said = f"{len(packed)} linears of {chosen} are packed in {size}"
    whole = share_of_half(sum(tensor.nbytes for tensor in tensors.values()), base.half_bytes)
    found = [f"{said}, {held / base.weights:.1%} of the model's weights; the model is {whole}"]
    wide = [p for p in packed if p.packing is not None and p.packing.scales.dtype == np.float32]
    if wide:
        found.append(
            f"scales of {len(wide)} linears are float32, for float16 does not hold their steps: "
            "--dtype float16 rounds them"
        )
    kept = [f"{plan.name.full} ({plan.why_not})" for plan in plans if plan.packing is None]
    if kept:
        found.append(f"not packed, kept as floats on their grid: {', '.join(kept)}")
    repacked = [p for p in packed if p.packing is not None and p.packing.bits != p.bits]
    if repacked:
        found.append(f"{len(repacked)} linears of 7 bits are packed in 8, exactly")
    return found
