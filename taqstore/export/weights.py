"""Quantized weights for others as safetensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, problem
from taqstore.files.safetensors import write_safetensors
from taqstore.files.staged import whole_file
from taqstore.files.written import Summary, summarize
from taqstore.kinds.quantized_linears import (
    Groups,
    QuantizedLinear,
    differing_settings,
    linear_names_of,
    quantized_blocks,
    quantized_linear,
    run_of,
)
from taqstore.kinds.weight_files import CONTENT
from taqstore.kinds.weight_sets import chosen_set
from taqstore.names import LayerName, path_in_model


def safetensors(
    store: Groups, out: Path, *, weights: str | None = None, force: bool = False
) -> Summary:
    """Write integers, steps and input quantizers, under the full names of linears.

    ``{name}.weight`` int8 (out, in), ``.step_size`` float32 (out, group), ``.activation_step``,
    ``.activation_zero_point``, ``.activation_bits``, ``.sigma_lower`` (time_group,), and where
    there are any ``.activation_shift`` (time_group, in) and ``.activation_multiplier`` (in,), of
    affine grids ``.offset`` (out, group), and ``.weight_bits`` () where they are not the `bits` of
    the header. The header's metadata hold `content`, `bits`, `run` and, where all linears have the
    same, `sigma_lower`, as JSON.

    Parameters
    ----------
    weights
        Weight set; None: the only one there is.

    Raises
    ------
    MissingError
        No linear of the quantized weights is complete.
    MisuseError
        There are several weight sets and none is named, or the suffix is not `.safetensors`.
    """
    _check_name(out)
    chosen = chosen_set(store, weights)
    linears = [quantized_linear(store, name, set=chosen) for name in _names(store, chosen)]
    bits = run_of(store, chosen).get("bits")
    tensors = {
        f"{linear.name.full}.{name}": values
        for linear in linears
        for name, values in _tensors(linear, bits)
    }
    lowers = {tuple(linear.input.sigma_lower.tolist()) for linear in linears}
    shared: dict[str, Any] = {"sigma_lower": list(*lowers)} if len(lowers) == 1 else {}
    return _write(store, chosen, out, tensors, force, content=CONTENT, **shared)


def _tensors(linear: QuantizedLinear, bits: int | None) -> Iterator[tuple[str, np.ndarray]]:
    yield "weight", linear.weight
    yield "step_size", linear.step
    if linear.offset is not None:
        yield "offset", linear.offset
    if linear.bits not in (0, bits):
        yield "weight_bits", np.array(linear.bits, np.int8)
    yield "activation_step", linear.input.step
    yield "activation_zero_point", linear.input.zero_point
    yield "activation_bits", linear.input.bits
    yield "sigma_lower", linear.input.sigma_lower
    if linear.input.shift is not None:
        yield "activation_shift", linear.input.shift
    if linear.input.multiplier is not None:
        yield "activation_multiplier", linear.input.multiplier


def safetensors_mlx(
    store: Groups, out: Path, *, weights: str | None = None, force: bool = False
) -> Summary:
    """Write float16 weights, integers times steps, under DiffusionKit's parameter names.

    ``mmdit.load_weights(list(mx.load(FILE).items()), strict=False)`` puts them in place. float16
    moves a weight off its grid by at most 2^-11 of itself; inputs are not quantized.

    Raises
    ------
    MissingError, MisuseError
        As of `safetensors`.
    """
    _check_name(out)
    chosen = chosen_set(store, weights)
    tensors = _Made(
        {
            f"{path_in_model(name)}.weight": partial(_half, store, name, chosen)
            for name in _names(store, chosen)
        }
    )
    return _write(store, chosen, out, tensors, force, content="float16")


def _check_name(out: Path) -> None:
    if out.suffix != ".safetensors":
        what, remedy = "not the name of a safetensors file", "write FILE.safetensors"
        raise MisuseError(problem(what, where=out.name, remedy=remedy))


def _names(store: Groups, chosen: str) -> list[LayerName]:
    """Linears in the order of blocks, those outside of blocks after them."""
    names = linear_names_of(store, set=chosen)
    if not names:
        quantized_blocks(store, set=chosen)  # says what is missing
    return names


def _half(store: Groups, name: LayerName, chosen: str) -> np.ndarray:
    return quantized_linear(store, name, set=chosen).dequantized().astype(np.float16)


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
    store: Groups,
    chosen: str,
    out: Path,
    tensors: Mapping[str, np.ndarray],
    force: bool,
    **metadata: Any,
) -> Summary:
    run, differing = run_of(store, chosen), differing_settings(store, chosen)
    texts = {**metadata, "bits": run.get("bits"), "run": run}
    with whole_file(out, force=force) as fresh:
        write_safetensors(
            fresh,
            tensors,
            format="mlx",
            **{k: v if isinstance(v, str) else json.dumps(v) for k, v in texts.items()},
        )
    note = f"settings that are not the same at all sites are left out: {', '.join(differing)}"
    return summarize(out, note if differing else "")
