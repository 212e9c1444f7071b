"""Quantized weights for others: the source's folder of npz files, and safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MisuseError, problem
from taqstore.files.documents import write_document
from taqstore.files.safetensors import write_safetensors
from taqstore.files.staged import whole_file, whole_folder
from taqstore.files.written import Summary, make_folder, save_all, save_npz, summarize
from taqstore.kinds.quantized_linears import (
    Groups,
    QuantizedLinear,
    quantized_blocks,
    quantized_linears,
    run_of,
)
from taqstore.kinds.weight_files import CONTENT
from taqstore.names import RECONSTRUCTION, array_key, path_in_block, path_in_model

FORMAT = "adaround_v1"
_CONTENT = ("config.json", "weights/*.npz")
# What a run calls a setting -> what the source's config.json does.
_SETTINGS = {
    "model": "model_version",
    "bits": "bits_w",
    "activation_bits": "bits_a",
    "iterations": "iters",
    "batch_size": "batch_size",
    "learning_rate": "w_lr",
    "step_rate": "a_lr",
}


def adaround(store: Groups, out: Path, *, force: bool = False) -> Summary:
    """Write ``config.json`` and ``weights/{block}.npz`` as the source's optimiser leaves them.

    Members of a file, ``{path}`` being the linear's place in its block with ``_`` for ``.``
    (``image_transformer_block_attn_q_proj``): ``{path}__weight_int`` int8 (out, in);
    ``{path}__scale`` float32 (out, group), steps of the weight; ``{path}__a_scale`` float32
    (time_group,), steps of the input, (1,) in the source; ``{path}__alpha`` float (out, in),
    AdaRound's rounding variable. Added where the store has them: ``{path}__a_shift`` and
    ``{path}__a_multiplier``. In `config.json` ``sigma_lower``, ``block_metrics[].output_error`` and
    ``output_power`` are added, and settings that the run does not record are left out.

    Raises
    ------
    MissingError
        No block of quantized weights is complete.
    """
    blocks = quantized_blocks(store)
    with whole_folder(out, content=_CONTENT, force=force) as folder:
        weights = make_folder(folder / "weights")
        metrics: list[dict[str, Any]] = []
        save_all(_jobs(store, blocks, weights, metrics))
        write_document(folder / "config.json", "adaround-weights", _config(store, metrics))
    first = next(quantized_linears(store, blocks[0])).input
    timed = "the source's loader takes the first of several activation steps"
    shifted = "the source's loader does not see a_shift and a_multiplier"
    extra = any(v is not None for v in (first.shift, first.multiplier))
    return summarize(out, timed if first.step.size > 1 else "", shifted if extra else "")


def _jobs(
    store: Groups, blocks: list[str], folder: Path, metrics: list[dict[str, Any]]
) -> Iterator[Callable[[], None]]:
    for block in blocks:
        members: dict[str, np.ndarray] = {}
        paths = []
        for linear in quantized_linears(store, block, rounding=True):
            paths.append(path_in_block(linear.name))
            members |= {f"{array_key(paths[-1])}__{k}": v for k, v in _members(linear)}
        metrics.append({"block_name": block, "quant_paths": paths, **_metrics(store, block)})
        yield partial(save_npz, folder / f"{block}.npz", members)


def _members(linear: QuantizedLinear) -> Iterator[tuple[str, np.ndarray]]:
    yield "weight_int", linear.weight
    yield "scale", linear.step
    yield "a_scale", linear.input.step
    if linear.rounding is not None:
        yield "alpha", linear.rounding
    if linear.input.shift is not None:
        yield "a_shift", linear.input.shift
    if linear.input.multiplier is not None:
        yield "a_multiplier", linear.input.multiplier


def _config(store: Groups, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    run = run_of(store)
    first = next(quantized_linears(store, metrics[0]["block_name"]))
    return {
        "format": FORMAT,
        **{theirs: run[ours] for ours, theirs in _SETTINGS.items() if ours in run},
        "sigma_lower": first.input.sigma_lower.tolist(),
        "n_blocks_quantised": len(metrics),
        "block_metrics": metrics,
    }


def _metrics(store: Groups, block: str) -> dict[str, Any]:
    if RECONSTRUCTION not in store:
        return {}
    found = store[RECONSTRUCTION].sel(block=block).load()
    losses = found["loss"].values[np.isfinite(found["loss"].values)]
    return {
        **({"final_loss": float(losses[-1])} if losses.size else {}),
        "iterations": int(found["iterations"]),
        "output_error": {
            str(method): _by_stream(found["output_error"].sel(rounding_method=method))
            for method in found["rounding_method"].values
        },
        "output_power": _by_stream(found["output_power"]),
    }


def _by_stream(values: xr.DataArray) -> dict[str, float]:
    return {str(v["stream"].values): float(v) for v in values if np.isfinite(v)}


def safetensors(store: Groups, out: Path, *, force: bool = False) -> Summary:
    """Write integers, steps and input quantizers, under the full names of linears.

    ``{name}.weight`` int8 (out, in), ``.step_size`` float32 (out, group), ``.activation_step``,
    ``.activation_zero_point``, ``.activation_bits`` (time_group,), and where there are any
    ``.activation_shift`` (time_group, in) and ``.activation_multiplier`` (in,). The header's
    metadata hold `content`, `bits`, `sigma_lower` and `run` as JSON.

    Raises
    ------
    MissingError
        No block of quantized weights is complete, or the suffix is not `.safetensors`.
    """
    linears = [x for block in _file_of(store, out) for x in quantized_linears(store, block)]
    tensors = {
        f"{linear.name.full}.{name}": values
        for linear in linears
        for name, values in _tensors(linear)
    }
    sigma_lower = linears[0].input.sigma_lower.tolist()
    return _write(store, out, tensors, force, content=CONTENT, sigma_lower=sigma_lower)


def _tensors(linear: QuantizedLinear) -> Iterator[tuple[str, np.ndarray]]:
    yield "weight", linear.weight
    yield "step_size", linear.step
    yield "activation_step", linear.input.step
    yield "activation_zero_point", linear.input.zero_point
    yield "activation_bits", linear.input.bits
    if linear.input.shift is not None:
        yield "activation_shift", linear.input.shift
    if linear.input.multiplier is not None:
        yield "activation_multiplier", linear.input.multiplier


def safetensors_mlx(store: Groups, out: Path, *, force: bool = False) -> Summary:
    """Write float16 weights, integers times steps, under DiffusionKit's parameter names.

    ``mmdit.load_weights(list(mx.load(FILE).items()), strict=False)`` puts them in place. float16
    moves a weight off its grid by at most 2^-11 of itself; inputs are not quantized.

    Raises
    ------
    MissingError
        As of `safetensors`.
    """
    tensors = _Made(
        {
            f"{path_in_model(linear.name)}.weight": partial(_half, linear)
            for block in _file_of(store, out)
            for linear in quantized_linears(store, block)
        }
    )
    return _write(store, out, tensors, force, content="float16")


def _file_of(store: Groups, out: Path) -> list[str]:
    if out.suffix != ".safetensors":
        what, remedy = "not the name of a safetensors file", "write FILE.safetensors"
        raise MisuseError(problem(what, where=out.name, remedy=remedy))
    return quantized_blocks(store)


def _half(linear: QuantizedLinear) -> np.ndarray:
    return linear.dequantized().astype(np.float16)


class _Made(Mapping[str, np.ndarray]):
    """Arrays made each time they are asked for, so that one is in memory at a time."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> np.ndarray:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _write(
    store: Groups, out: Path, tensors: Mapping[str, np.ndarray], force: bool, **metadata: Any
) -> Summary:
    run = dict(run_of(store))
    texts = {**metadata, "bits": run.get("bits"), "run": run}
    with whole_file(out, force=force) as fresh:
        write_safetensors(
            fresh,
            tensors,
            format="mlx",
            **{k: v if isinstance(v, str) else json.dumps(v) for k, v in texts.items()},
        )
    return summarize(out)
