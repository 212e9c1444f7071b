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
    quantized_blocks,
    quantized_linears,
    run_of,
)
from taqstore.kinds.weight_files import CONTENT
from taqstore.names import path_in_model


def safetensors(store: Groups, out: Path, *, force: bool = False) -> Summary:
    """Write integers, steps and input quantizers, under the full names of linears.

    ``{name}.weight`` int8 (out, in), ``.step_size`` float32 (out, group), ``.activation_step``,
    ``.activation_zero_point``, ``.activation_bits``, ``.sigma_lower`` (time_group,), and where
    there are any ``.activation_shift`` (time_group, in) and ``.activation_multiplier`` (in,). The
    header's metadata hold `content`, `bits`, `run` and, where all linears have the same,
    `sigma_lower`, as JSON.

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
    lowers = {tuple(linear.input.sigma_lower.tolist()) for linear in linears}
    shared: dict[str, Any] = {"sigma_lower": list(*lowers)} if len(lowers) == 1 else {}
    return _write(store, out, tensors, force, content=CONTENT, **shared)


def _tensors(linear: QuantizedLinear) -> Iterator[tuple[str, np.ndarray]]:
    yield "weight", linear.weight
    yield "step_size", linear.step
    yield "activation_step", linear.input.step
    yield "activation_zero_point", linear.input.zero_point
    yield "activation_bits", linear.input.bits
    yield "sigma_lower", linear.input.sigma_lower
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
    run, differing = run_of(store), differing_settings(store)
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
