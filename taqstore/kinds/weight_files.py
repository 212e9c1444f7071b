"""Quantized weights and activation quantizers out of files: `export safetensors`, config v4."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import MissingError, SourceError, TaqError, problem
from taqstore.files.npy import exactly
from taqstore.files.safetensors import read_metadata, read_safetensors
from taqstore.files.schema import validate
from taqstore.kinds.quantized_linears import InputQuantizer, QuantizedLinear
from taqstore.names import LayerName, parse_layer
from taqstore.quantization.quantizer import integer_range

CONTENT = "integers"
_NEEDED = ("weight", "step_size", "activation_step", "activation_zero_point", "activation_bits")
_KINDS: Mapping[str, type] = {
    "weight": np.int8,
    "step_size": np.float32,
    "offset": np.float32,
    "weight_bits": np.int8,
    "activation_step": np.float32,
    "activation_zero_point": np.int32,
    "activation_bits": np.int8,
    "activation_shift": np.float32,
    "activation_multiplier": np.float32,
    "sigma_lower": np.float32,
}
Array = NDArray[Any]


def read_quantized(path: Path) -> dict[LayerName, QuantizedLinear]:
    """Linears of a file that `taqstore export safetensors` wrote.

    A linear's groups of steps are its `sigma_lower`; older files have one for all, in the header.

    Raises
    ------
    SourceError
        It is another file, or damaged: tensors are missing, or do not fit each other.
    """
    metadata = _metadata(path)
    shared, bits = metadata.get("sigma_lower"), _parsed(path, metadata.get("bits", "0"))
    sigma_lower = None if shared is None else _sigma_lower(path, shared)
    tensors: dict[str, dict[str, Array]] = {}
    for name, values in read_safetensors(path, wanted=_is_needed):
        linear, _, kind = name.rpartition(".")
        parse_layer(linear)
        tensors.setdefault(linear, {})[kind] = _as_written(path, name, values, _KINDS[kind])
    usual = bits if isinstance(bits, int) else 0
    found = (_linear(path, name, parts, sigma_lower, usual) for name, parts in tensors.items())
    return {linear.name: linear for linear in found}


def _is_needed(name: str) -> bool:
    """Whether a tensor is of a quantized linear; what else a file holds is not judged."""
    linear, _, kind = name.rpartition(".")
    if kind != "weight":
        return kind in _KINDS
    try:
        return bool(parse_layer(linear))
    except MissingError:
        return False


def _as_written(path: Path, name: str, values: Array, dtype: type) -> Array:
    """A tensor in the dtype that `export safetensors` writes, where that is exact.

    Steps are wide where they came so.
    """
    found = exactly(values, np.dtype(dtype))
    if found is None and values.dtype == np.float64 and dtype is np.float32:
        return values
    if found is None:
        what = f"{name} holds numbers that {np.dtype(dtype).name} does not"
        remedy = "export it again"
        raise SourceError(problem(what, where=str(path), found=values.dtype.name, remedy=remedy))
    return found


def read_run(path: Path) -> dict[str, Any]:
    """Settings of the run that made such a file; empty where it does not say.

    Raises
    ------
    SourceError
        As of `read_quantized`.
    """
    found = _parsed(path, _metadata(path).get("run", "{}"))
    if not isinstance(found, dict):
        what = "run in the header is no JSON object"
        raise SourceError(problem(what, where=str(path), found=str(found)[:80]))
    return found


def _metadata(path: Path) -> dict[str, str]:
    metadata = read_metadata(path)
    if metadata.get("content") != CONTENT:
        found, remedy = metadata.get("content", "no content"), "taqstore export safetensors"
        what = "no file of quantized weights"
        raise SourceError(problem(what, where=str(path), found=found, remedy=remedy))
    return metadata


def _sigma_lower(path: Path, text: str) -> Array:
    found = _parsed(path, text)
    if not isinstance(found, list) or not found or not all(isinstance(x, float) for x in found):
        what = "sigma_lower in the header is no list of numbers"
        raise SourceError(problem(what, where=str(path), found=text))
    return np.array(found, np.float32)


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            problem("the header's metadata are no JSON", where=str(path), found=str(error))
        ) from error


def _linear(
    path: Path, name: str, parts: Mapping[str, Array], shared: Array | None, usual: int
) -> QuantizedLinear:
    sigma_lower = parts.get("sigma_lower", shared)
    missing = [kind for kind in _NEEDED if kind not in parts]
    if missing or sigma_lower is None:
        lacking = [*missing, "sigma_lower"][0]
        raise SourceError(problem(f"{name} has no {lacking}", where=str(path)))
    other = shared is not None and sigma_lower.tolist() != shared.tolist()
    if other or not _descends(sigma_lower):
        rule = "is not that of the header" if other else "does not descend to 0"
        what, found = f"sigma_lower of {name} {rule}", str(sigma_lower)[:80]
        raise SourceError(problem(what, where=str(path), found=found))
    if not _fit(parts, len(sigma_lower)):
        found = ", ".join(f"{kind} {values.shape}" for kind, values in parts.items())
        raise SourceError(problem(f"tensors of {name} do not fit", where=str(path), found=found))
    quantizer = InputQuantizer(
        parts["activation_step"],
        parts["activation_zero_point"],
        parts["activation_bits"],
        sigma_lower,
        parts.get("activation_shift"),
        parts.get("activation_multiplier"),
    )
    bits = int(parts["weight_bits"]) if "weight_bits" in parts else usual
    return QuantizedLinear(
        parse_layer(name),
        parts["weight"],
        parts["step_size"],
        quantizer,
        offset=parts.get("offset"),
        bits=bits,
    )


def _descends(lower: Array) -> bool:
    """Whether noise levels are those of groups of steps, see `weights_template`."""
    flat = lower.ndim == 1 and lower.size > 0 and lower.dtype.kind == "f"
    return flat and bool((np.diff(lower) < 0).all() and lower[-1] <= 0)


def _fit(parts: Mapping[str, Array], count: int) -> bool:
    """Whether the tensors of a linear have the shapes that go with its weight's."""
    weight, step = parts["weight"], parts["step_size"]
    if weight.ndim != 2 or step.ndim != 2 or weight.dtype != np.int8:
        return False
    (out, into), groups = weight.shape, step.shape[1]
    shapes: dict[str, tuple[int, ...]] = {
        "step_size": (out, groups),
        "offset": (out, groups),
        "weight_bits": (),
        **dict.fromkeys(_NEEDED[2:], (count,)),
        "activation_shift": (count, into),
        "activation_multiplier": (into,),
    }
    same = all(parts[kind].shape == shapes[kind] for kind in shapes if kind in parts)
    return same and groups > 0 and into % groups == 0


def read_quant_config(path: Path) -> dict[LayerName, InputQuantizer]:
    """Input quantizers of a per-timestep config v4, one time group for each of its steps.

    Its `scale` is a clip bound, so the step size is ``scale / (2**(bits - 1) - 1)``. Where it lists
    outlier channels of a linear, these get their multipliers m, and the bound shrinks to what is
    left to cover: by ``max(scale_normal, scale_outlier / m) / max(scale_normal, scale_outlier)``,
    at every step as at the one that these were taken from.

    Raises
    ------
    SourceError
        The file is no JSON.
    DocumentError
        It is not such a config.
    MissingError
        A step has no sigma, or a linear is not in every step.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(problem("no text", where=str(path), found=str(error))) from error
    document = _parsed(path, text)
    if not isinstance(document, dict):
        raise SourceError(problem("no JSON object", where=str(path)))
    validate("quant-config-v4", document, where=str(path))
    try:
        return _quantizers(path, document)
    except (OverflowError, TypeError, ValueError) as error:
        if isinstance(error, TaqError):
            raise
        what = "numbers that no quantizer has"
        raise SourceError(problem(what, where=str(path), found=str(error))) from error


def _quantizers(path: Path, document: Mapping[str, Any]) -> dict[LayerName, InputQuantizer]:
    steps, sigmas = document["per_timestep"], document["sigma_map"]
    absent = [step for step in steps if step not in sigmas]
    if absent:
        raise MissingError(problem(f"no sigma of step {absent[0]}", where=str(path)))
    ordered = sorted(steps, key=lambda step: -float(sigmas[step]))
    lower = np.array([*(float(sigmas[step]) for step in ordered[:-1]), 0.0], np.float32)
    outliers = document.get("outlier_config", {})
    names = dict.fromkeys(name for step in ordered for name in steps[step])
    found = {}
    for name in names:
        entries = [steps[step].get(name) for step in ordered]
        if None in entries:
            step = ordered[entries.index(None)]
            raise MissingError(problem(f"{name} is not in step {step}", where=str(path)))
        found[parse_layer(name)] = _from_config(entries, lower, outliers.get(name))
    return found


def _from_config(
    entries: list[dict[str, Any]], lower: Array, outlier: Mapping[str, Any] | None
) -> InputQuantizer:
    bits = np.array([entry["bits"] for entry in entries], np.int8)
    qmax = np.array([integer_range(int(b))[1] for b in bits])
    step = np.array([entry["scale"] for entry in entries], np.float64) / qmax
    shifts = _shifts(entries)
    multiplier = None
    if outlier is not None:
        multiplier = np.array(outlier["multiplier_vector"], np.float32)
        normal, wide = outlier["scale_normal"], outlier["scale_outlier"]
        left = max(normal, wide / float(multiplier.max()))
        step *= left / max(normal, wide) if wide or normal else 1.0
    return InputQuantizer(
        step.astype(np.float32),
        np.zeros(len(bits), np.int32),
        bits,
        lower,
        shifts,
        multiplier,
    )


def _shifts(entries: list[dict[str, Any]]) -> Array | None:
    """Shifts (time_group, channel): 0 at the steps that have none; None where no step has one."""
    known = [entry["shift"] for entry in entries if "shift" in entry]
    if not known:
        return None
    none = np.zeros(len(known[0]))
    return np.array([entry.get("shift", none) for entry in entries], np.float32)
