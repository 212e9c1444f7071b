"""Answers as JSON documents: allocations, step policies, configs of inputs by step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, MisuseError, problem
from taqstore.export.pasted.allocated import allocated
from taqstore.files.schema import validate
from taqstore.kinds.formats.allocations import FORMAT, SCHEMA
from taqstore.kinds.formats.input_formats import InputFormat
from taqstore.kinds.formats.weight_formats import FLOAT
from taqstore.kinds.quantized_linears import InputQuantizer
from taqstore.kinds.weights import time_group_of
from taqstore.names import ACTIVATIONS, SITES, LayerName, linear_names, parse_layer
from taqstore.quantization.quantizer import integer_range
from taqstore.query.activation_start import activation_start, input_quantizer
from taqstore.version import __version__

Groups = Mapping[str, xr.Dataset]
# As `taqstore evaluate` has it.
_SHIFTED, _TIME_GROUPS = ("mlp.fc2",), 4
_WHOLE = 16


def allocation(groups: Groups, result: xr.Dataset) -> str:
    """The document that variants `mixed` run, of `allocation.schema.json`."""
    del groups
    linears = {name.full: format for name, format in allocated(result).items()}
    row = result.sel(budget=result.attrs["average"])
    document = {
        "format": FORMAT,
        "linears": linears,
        "average_bits": float(row["average_bits"]),
        **({"predicted_error": float(row["predicted_error"])} if "predicted_error" in row else {}),
        "cost": result.attrs["basis"],
        "metadata": _metadata(result),
    }
    return _text(SCHEMA, document)


def step_policy(groups: Groups, result: xr.Dataset) -> str:
    """`quantization_config.runtime.diffusion_step_policy`, of the chosen pair.

    The shape that vLLM-Omni, SGLang, TensorRT-LLM and diffusers read, each of them all fields and
    no other value of most; `reasoner` is of models that have one.

    Raises
    ------
    MisuseError
        Protected steps have other than 16 bits: no runtime has a mode for them.
    """
    del groups
    if result.attrs["protect_bits"] != _WHOLE:
        what = "a diffusion_step_policy protects steps by 16 bits alone"
        raise MisuseError(problem(what, remedy="--paste quant-config has any bits"))
    policy = {
        "schema_version": 1,
        "type": "first_last_n",
        "index_space": "denoising_loop_iteration",
        "scope": ["transformer"],
        "default_mode": "native",
        "first_steps": {"count": int(result.attrs["chosen_first"]), "mode": "a16"},
        "last_steps": {"count": int(result.attrs["chosen_last"]), "mode": "a16"},
        "overlap": "a16",
        "reasoner": "native",
    }
    document = {"quantization_config": {"runtime": {"diffusion_step_policy": policy}}}
    return _text("diffusion-step-policy", document)


def step_config(groups: Groups, result: xr.Dataset) -> str:
    """Config v4: inputs of all sites of blocks by the format, with other bits at protected steps.

    Raises
    ------
    MissingError
        The store has no activations.
    """
    first, last = int(result.attrs["chosen_first"]), int(result.attrs["chosen_last"])
    names = {
        parse_layer(linear): str(result.attrs["format"])
        for site in SITES
        if f"{ACTIVATIONS}/{site}" in groups
        for layer in groups[f"{ACTIVATIONS}/{site}"]["layer"].values
        for linear in linear_names(_at_site(str(layer), site))
    }
    count = int(result.attrs["steps"])
    protected = [step for step in range(count) if step < first or step >= count - last]
    return _config(groups, result, names, dict.fromkeys(protected, result.attrs["protect_bits"]))


def input_config(groups: Groups, result: xr.Dataset) -> str:
    """Config v4: inputs of every linear by its format; linears left out stay as they are.

    Raises
    ------
    MisuseError
        No allocation was asked for, or one of weights.
    MissingError
        The store has no activations of a linear.
    """
    names = {n: f for n, f in allocated(result, inputs=True).items() if f != FLOAT}
    if not names:
        what = "no input is quantized at this budget"
        raise MisuseError(problem(what, remedy="give a smaller --average"))
    return _config(groups, result, names, {})


def _at_site(layer: str, site: str) -> LayerName:
    known = parse_layer(layer)
    return LayerName(known.block, known.stream, site)


def _config(
    groups: Groups,
    result: xr.Dataset,
    formats: Mapping[LayerName, str],
    bits: Mapping[int, int],
) -> str:
    """A config of these linears; `bits` are those of steps that have others."""
    if not formats:
        remedy = "taqstore collect observes them"
        raise MissingError(problem("the store has no activations of blocks", remedy=remedy))
    found = quantizers(groups, formats)
    like = groups[f"{ACTIVATIONS}/{next(iter(formats)).site}"]
    steps = [int(step) for step in like["step"].values]
    sigmas = [float(sigma) for sigma in like["sigma"].values]
    document = {
        "format": "per_timestep_quant_config_v4",
        "per_timestep": {
            str(step): {
                name.full: _entry(quantizer, sigma, bits.get(place))
                for name, quantizer in found.items()
            }
            for place, (step, sigma) in enumerate(zip(steps, sigmas, strict=True))
        },
        "sigma_map": dict(zip(map(str, steps), sigmas, strict=True)),
        "summary": _summary(found, formats, len(steps)),
        "metadata": _metadata(result),
    }
    return _text("quant-config-v4", document)


def quantizers(groups: Groups, formats: Mapping[LayerName, str]) -> dict[LayerName, InputQuantizer]:
    """Quantizers of inputs by the names of formats, as `taqstore evaluate` starts them.

    Raises
    ------
    MissingError
        A linear's input was not observed.
    """
    started: dict[tuple[str, str], xr.Dataset] = {}
    found = {}
    for name, text in formats.items():
        key, format = (name.site, text), InputFormat.parse(text)
        path = f"{ACTIVATIONS}/{name.site}"
        if key not in started:
            if path not in groups:
                remedy = "taqstore collect observes them"
                raise MissingError(problem(f"no {path} in the store", remedy=remedy))
            shifted = format.shift and name.site in _SHIFTED
            grouped = min(_TIME_GROUPS, groups[path].sizes["step"])
            started[key] = activation_start(
                groups[path],
                bits=format.bits,
                groups={"static": 1, "grouped": grouped, "step": None}[format.steps],
                clip="mse" if format.mse and not shifted else "absmax",
                shifted=shifted,
            ).compute()
        found[name] = input_quantizer(started[key], name.layer, format.bits)
    return found


def _entry(quantizer: InputQuantizer, sigma: float, bits: int | None) -> dict[str, Any]:
    """A linear at a step; `scale` is its clip bound, which other bits leave as it is."""
    group = int(time_group_of(sigma, quantizer.sigma_lower))
    own = int(quantizer.bits[group])
    bound = float(np.float64(quantizer.step[group]) * integer_range(own)[1])
    entry: dict[str, Any] = {"bits": int(bits or own), "scale": bound}
    if quantizer.shift is not None:
        entry["shift"] = quantizer.shift[group].astype(np.float64).tolist()
    return entry


def _summary(
    found: Mapping[LayerName, InputQuantizer], formats: Mapping[LayerName, str], steps: int
) -> dict[str, Any]:
    widths = Counter(InputFormat.parse(text).bits for text in formats.values())
    shifted = [name for name, one in found.items() if one.shift is not None]
    return {
        "total_timesteps": steps,
        "total_layers": len(found),
        "total_decisions": steps * len(found),
        "activation_bits": widths.most_common(1)[0][0],
        "post_gelu_layers_with_shift": len(shifted),
        "scale_source": ", ".join(sorted(set(formats.values()))),
    }


def _metadata(result: xr.Dataset) -> dict[str, Any]:
    known = ("basis", "format", "chosen_first", "chosen_last", "protect_bits", "bits_counted")
    about = {key: result.attrs[key] for key in (*known, "store_digest") if key in result.attrs}
    return {"taqstore": __version__, **about}


def _text(schema: str, document: dict[str, Any]) -> str:
    validate(schema, document)
    return json.dumps(document, indent=2) + "\n"
