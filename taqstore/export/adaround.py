"""Quantized weights as the source's optimiser leaves them: config.json and a npz for each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import TaqError, problem
from taqstore.export.unshifted import Unshifted
from taqstore.files.documents import write_document
from taqstore.files.staged import whole_folder
from taqstore.files.written import Summary, make_folder, save_all, save_npz, summarize
from taqstore.kinds import nonfinite
from taqstore.kinds.quantized_linears import (
    Groups,
    QuantizedLinear,
    differing_settings,
    quantized_blocks,
    quantized_linears,
    run_of,
    weight_groups_of,
)
from taqstore.kinds.weight_sets import chosen_set, reconstruction_path
from taqstore.names import SITES, array_key, path_in_block, tensor_site
from taqstore.store.attributes import attribute_of

FORMAT = "adaround_v1"
CONTENT = ("config.json", "weights/*.npz")
DOCUMENT = "source_document"
# What a run calls a setting -> what the source's config.json does.
SETTINGS = {
    "model": "model_version",
    "bits": "bits_w",
    "activation_bits": "bits_a",
    "iterations": "iters",
    "batch_size": "batch_size",
    "learning_rate": "w_lr",
    "step_rate": "a_lr",
}
# What `run` says of weights as the source makes them, which it has no words for.
_USUAL = {"method": "adaround", "grid": "symmetric"}
# What is always ours to say, whatever a document that came with the store does.
OURS = ("format", "sigma_lower", "run", "n_blocks_quantised", "block_metrics")
OURS_OF_BLOCK = ("block_name", "quant_paths")


def adaround(
    store: Groups,
    out: Path,
    *,
    no_shift: bool = False,
    weights: str | None = None,
    force: bool = False,
) -> Summary:
    """Write ``config.json`` and ``weights/{block}.npz`` as the source's optimiser leaves them.

    Members of a file, ``{path}`` being the linear's place in its block with ``_`` for ``.``
    (``image_transformer_block_attn_q_proj``): ``{path}__weight_int`` int8 (out, in);
    ``{path}__scale`` (out, group), steps of the weight; ``{path}__a_scale`` (time_group,), steps of
    the input, (1,) in the source; ``{path}__alpha`` float (out, in), AdaRound's rounding variable,
    where it was kept. dtypes are those of the store, or of the source where it told.

    Where a linear has them: ``{path}__a_shift`` and ``{path}__a_multiplier``;
    ``{path}__a_zero_point`` that is not 0; ``{path}__a_bits`` that are not the `bits_a` of
    `config.json`; ``{path}__sigma_lower`` (time_group,) of groups of steps. A linear whose input is
    not quantized has no ``a_scale``. In `config.json` ``run``, the run's settings, and ``losses``,
    ``seconds``, ``output_error``, ``output_power`` and ``errors`` of each block are added, and
    ``sigma_lower`` where all linears have the same; settings that the run does not record are left
    out.

    Parameters
    ----------
    no_shift
        Write no ``a_shift``: input steps of shifted linears are those that `scales` gives without a
        shift, by the run's rule, from the store's observations.
    weights
        Weight set; None: the only one there is.

    Raises
    ------
    MissingError
        No block of quantized weights is complete; or with `no_shift`, inputs were not observed.
    MisuseError
        There are several weight sets and none is named.
    TaqError
        The set has linears that the format cannot hold: affine grids, other bits than the rest,
        linears outside of attention and MLP.
    """
    chosen = chosen_set(store, weights)
    blocks, run = quantized_blocks(store, set=chosen), run_of(store, chosen)
    check_held(store, chosen, bits=run.get("bits"))
    unshifted = Unshifted(store, run) if no_shift else None
    job = _Job(store, chosen, {k: v for k, v in run.items() if _USUAL.get(k) != v}, unshifted)
    with whole_folder(out, content=CONTENT, force=force) as folder:
        save_all(job.files(blocks, make_folder(folder / "weights")))
        write_document(folder / "config.json", "adaround-weights", job.config())
    differing = differing_settings(store, chosen)
    settings = f"settings that are not the same at all sites are left out: {', '.join(differing)}"
    return summarize(out, *job.told.notes, settings if differing else "")


def check_held(store: Groups, set: str, *, bits: int | None) -> None:
    """Refuse a weight set that integers, steps and one width cannot hold.

    Raises
    ------
    TaqError
        A linear has an affine grid or other bits than the run says, or is none of a block's
        attention or MLP; it is named.
    """
    for site, data in weight_groups_of(store, set).items():
        layers, why = data["layer"].values, ""
        if tensor_site(site) not in SITES:
            why = "is none of a block's attention or MLP"
        elif "offset" in data and bool(data["offset"].notnull().any()):
            why = "has an affine grid"
        elif "weight_bits" in data and bits and bool((data["weight_bits"] != bits).any()):
            why = f"has other bits than the {bits} of the rest"
        if why and layers.size:
            what = f"weight set {set} does not fit this format: {layers[0]}.{site} {why}"
            raise TaqError(problem(what, remedy="export safetensors, or another set"))


@dataclass
class _Told:
    """What loaders of the source do not see, and of which linears."""

    linears: dict[str, list[str]] = field(default_factory=dict)
    seen: int = 0

    def see(self, linear: QuantizedLinear, extra: Sequence[str], recomputed: bool) -> None:
        """Remember a linear by what its members are."""
        self.seen += 1
        what = [f"does not see {name}" for name in extra if name != "sigma_lower"]
        if linear.input.step.size > 1:
            what.append("takes the first of several activation steps")
        for text in what:
            self._add(f"the source's loader {text}", linear)
        if recomputed:
            self._add("no a_shift: the input steps are recomputed without it", linear)
        if not _quantized(linear):
            self._add("no a_scale, for inputs that are not quantized", linear)

    def _add(self, text: str, linear: QuantizedLinear) -> None:
        self.linears.setdefault(text, []).append(linear.name.full)

    @property
    def notes(self) -> list[str]:
        """A sentence for each, with the linears and how many they are."""
        return [
            f"{text}: {len(names)} of {self.seen} linears, {nonfinite.listed(names)}"
            for text, names in self.linears.items()
        ]


@dataclass
class _Job:
    store: Groups
    chosen: str
    run: Mapping[str, Any]
    unshifted: Unshifted | None
    told: _Told = field(default_factory=_Told)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    lowers: set[tuple[float, ...]] = field(default_factory=set)

    def files(self, blocks: list[str], folder: Path) -> Iterator[Callable[[], None]]:
        """A writing job for each block; what is told of it is remembered as they are made."""
        for block in blocks:
            members: dict[str, np.ndarray] = {}
            paths = []
            for stored in quantized_linears(self.store, block, set=self.chosen, rounding=True):
                linear = self.unshifted.of(stored) if self.unshifted else stored
                paths.append(path_in_block(linear.name))
                extra = dict(_extra(linear, int(self.run.get("activation_bits", 0))))
                found = {**_members(linear), **extra}
                members |= {f"{array_key(paths[-1])}__{k}": v for k, v in found.items()}
                self.told.see(linear, list(extra), linear is not stored)
                self.lowers.add(tuple(linear.input.sigma_lower.tolist()))
            about = {"block_name": block, "quant_paths": paths}
            self.metrics.append(_merged({**about, **_metrics(self._reconstruction, block)},
                                        self._source_of(block), OURS_OF_BLOCK))  # fmt: skip
            yield partial(save_npz, folder / f"{block}.npz", members)

    def config(self) -> dict[str, Any]:
        """`config.json`; only after the files, which fill its metrics."""
        made = {
            "format": FORMAT,
            **{theirs: self.run[ours] for ours, theirs in SETTINGS.items() if ours in self.run},
            **({"sigma_lower": list(*self.lowers)} if len(self.lowers) == 1 else {}),
            "n_blocks_quantised": len(self.metrics),
            "run": dict(self.run),
            "block_metrics": self.metrics,
        }
        return _merged(made, self._source, OURS)

    @property
    def _source(self) -> Mapping[str, Any]:
        """The config that came with the weights, where they were ingested."""
        if self._reconstruction is None:
            return {}
        found: Mapping[str, Any] = attribute_of(self._reconstruction, DOCUMENT, {})
        return found

    @property
    def _reconstruction(self) -> xr.Dataset | None:
        path = reconstruction_path(self.chosen)
        if path not in self.store:
            return None
        return self.store[path]

    def _source_of(self, block: str) -> Mapping[str, Any]:
        metrics: list[dict[str, Any]] = self._source.get("block_metrics", [])
        return next((m for m in metrics if m.get("block_name") == block), {})


def _merged(
    made: Mapping[str, Any], source: Mapping[str, Any], ours: Sequence[str]
) -> dict[str, Any]:
    """Fields made here, with the source's own words for all but `ours`."""
    return {**made, **{key: value for key, value in source.items() if key not in ours}}


def _quantized(linear: QuantizedLinear) -> bool:
    return bool(np.isfinite(linear.input.step).any())


def _members(linear: QuantizedLinear) -> dict[str, np.ndarray]:
    """What the source has of every linear, in its dtypes."""
    found = {"weight_int": linear.weight, "scale": _as_source(linear, "step_size", linear.step)}
    if _quantized(linear):
        found["a_scale"] = _as_source(linear, "activation_step", linear.input.step)
    if linear.rounding is not None:
        found["alpha"] = _as_source(linear, "rounding", linear.rounding)
    return found


def _as_source(linear: QuantizedLinear, variable: str, values: np.ndarray) -> np.ndarray:
    return values.astype(linear.original.get(variable, values.dtype), copy=False)


def _extra(linear: QuantizedLinear, bits: int) -> Iterator[tuple[str, np.ndarray]]:
    """What the source has not: members that say more of an input than its config does."""
    found = linear.input
    if found.shift is not None:
        yield "a_shift", found.shift
    if found.multiplier is not None:
        yield "a_multiplier", found.multiplier
    if found.zero_point.any():
        yield "a_zero_point", found.zero_point
    # An input that is not quantized has no bits, or those that it shares with the rest of q, k, v.
    usual = {bits} if _quantized(linear) else {0, bits} if linear.name.projection else {0}
    if set(found.bits.tolist()) - usual:
        yield "a_bits", found.bits
    if found.sigma_lower.tolist() != [0.0]:
        yield "sigma_lower", found.sigma_lower


def _metrics(reconstruction: xr.Dataset | None, block: str) -> dict[str, Any]:
    if reconstruction is None:
        return {}
    found = reconstruction.sel(block=block).load()
    losses = found["loss"].values[np.isfinite(found["loss"].values)]
    return {
        **({"final_loss": float(losses[-1])} if losses.size else {}),
        "iterations": int(found["iterations"]),
        **({"seconds": float(found["seconds"])} if np.isfinite(found["seconds"]) else {}),
        "losses": {
            "iteration": found["iteration"].values.tolist(),
            **{name: _numbers(found[name].values) for name in ("loss", "rounding_loss")},
        },
        **_errors(found),
    }


def _errors(found: xr.Dataset) -> dict[str, Any]:
    """Errors of the block's output that are known, by method and stream."""
    by_method = _by(found["output_error"], "rounding_method")
    power = _by_stream(found["output_power"])
    errors: dict[str, Any] = {"output_error": by_method, "output_power": power}
    if "method_error" in found:
        errors["errors"] = {
            str(one["inputs"].values): _by(one, "rounding_method")
            for one in found["method_error"].transpose("inputs", ...)
        }
    return {name: value for name, value in errors.items() if any(value.values())}


def _by(values: xr.DataArray, dim: str) -> dict[str, dict[str, float]]:
    parts = {str(one[dim].values): _by_stream(one) for one in values.transpose(dim, ...)}
    return {name: part for name, part in parts.items() if part}


def _by_stream(values: xr.DataArray) -> dict[str, float]:
    return {str(v["stream"].values): float(v) for v in values if np.isfinite(v)}


def _numbers(values: np.ndarray) -> list[float | None]:
    """Numbers as JSON has them: null where there is none."""
    return [float(value) if np.isfinite(value) else None for value in values]
