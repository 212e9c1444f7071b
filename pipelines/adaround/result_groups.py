"""Groups that `adaround` fills: their templates, and a block's results written and flagged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.kinds.weight_sets import ADAROUND
from taqstore.kinds.weights import (
    INPUTS,
    METHODS,
    reconstruction_template,
    weights_template,
)
from taqstore.layout.template import Template
from taqstore.names import PROJECTIONS, RECONSTRUCTION, SITES, STREAMS, LayerName, site_of
from taqstore.quantization.weight_grid import weight_groups
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter

from ..models.layers import blocks
from ..models.load import LoadedModel
from ..models.rounding import Errors, Rounded, Settings
from ..run.groups import RUN
from .activation_inputs import SiteInputs
from .weight_start import WeightSet

# Losses kept of a block, evenly over its iterations.
_KEPT = 100


@dataclass(frozen=True)
class BlockResult:
    """What became of a block.

    Parameters
    ----------
    linears
        Quantized linears.
    errors
        By method of `METHODS`, then by inputs of `INPUTS`.
    losses
        Loss of every iteration that ran.
    rounding_losses
        Iteration -> rounding term, for the iterations of `kept_iterations`.
    seconds
        Wall time of all sessions.
    """

    linears: Mapping[LayerName, Rounded]
    errors: Mapping[str, Mapping[str, Errors]]
    losses: list[float]
    rounding_losses: Mapping[int, float]
    seconds: float


def kept_iterations(iterations: int) -> range:
    """Iterations whose losses are stored."""
    return range(0, iterations, max(1, iterations // _KEPT))


def rounding_templates(
    model: LoadedModel,
    settings: Settings,
    inputs: Mapping[str, SiteInputs],
    run: Mapping[str, Any],
    *,
    compared: bool = True,
    set: str = ADAROUND,
    folder: str | None = None,
    start: WeightSet | None = None,
) -> list[Template]:
    """Templates of `weights/<set>/<site>` and `reconstruction`, for all blocks of a model.

    Parameters
    ----------
    compared
        Whether `reconstruction` has errors for each kind of inputs.
    set, folder
        As of `weights_template`.
    start
        The set that roundings start from, and whose grids they keep.
    """
    found = model.inputs()
    templates = []
    for site in SITES:
        at_site = [linear for linear in found if linear.site == site]
        out, into = at_site[0].module.weight.shape
        templates.append(
            weights_template(
                site,
                layers=[linear.layer for linear in at_site],
                shape=(out, into),
                groups=weight_groups(into, settings.group_size)
                if start is None
                else start.groups_of(site),
                offset=start is not None and start.has_offset(site),
                sigma_lower=inputs[site].sigma_lower,
                shifted=inputs[site].shifted,
                set=set,
                folder=folder,
                attrs={RUN: run},
            )
        )
    every = blocks(model.mmdit)
    present = {stream for block in every for stream in block.streams}
    streams = [stream for stream in STREAMS if stream in present]
    return [
        *templates,
        reconstruction_template(
            set=set,
            blocks=[block.name for block in every],
            streams=streams,
            iterations=kept_iterations(settings.iterations),
            compared=compared,
            started=start is not None,
            attrs={RUN: run},
        ),
    ]


@dataclass(frozen=True)
class RoundingWriter:
    """The groups, open, with what all layers of a site share."""

    groups: Mapping[str, GroupWriter]
    inputs: Mapping[str, SiteInputs]
    settings: Settings
    outcome: Outcome

    @property
    def blocks(self) -> GroupWriter:
        """Group `reconstruction`."""
        return next(g for g in self.groups.values() if g.template.kind == RECONSTRUCTION)

    def write(self, block: str, result: BlockResult) -> None:
        """Write a block's layers and flag them, then the block."""
        layers = dict.fromkeys((name.site, name.layer) for name in result.linears)
        for site, layer in layers:
            found = [r for n, r in result.linears.items() if (n.site, n.layer) == (site, layer)]
            self._write_layer(site, layer, found)
        group = self.blocks
        at = _labels(group, "block").index(block)
        self._put(group, at, self._block_arrays(group.template, result))

    def _write_layer(self, site: str, layer: str, found: list[Rounded]) -> None:
        inputs = self.inputs[site]
        group = next(g for path, g in self.groups.items() if site_of(path) == site)
        at = _labels(group, "layer").index(layer)
        arrays = {
            "weight": np.stack([r.weight for r in found]),
            "step_size": np.stack([r.step_size for r in found]),
            "rounding": np.stack([r.rounding for r in found]),
            "activation_step": np.stack([r.activation_step for r in found]),
        }
        arrays["activation_zero_point"] = np.zeros(arrays["activation_step"].shape, np.int32)
        if any(array.name == "weight_bits" for array in group.template.arrays):
            arrays["weight_bits"] = np.array([r.bits for r in found], np.int8)
        offsets = [r.offset for r in found if r.offset is not None]
        if offsets:
            arrays["offset"] = np.stack(offsets)
        if len(found) < len(PROJECTIONS):
            arrays = {name: values[0] for name, values in arrays.items()}
        arrays["activation_bits"] = np.full(
            len(inputs.sigma_lower), self.settings.activation_bits, np.int8
        )
        if inputs.shifted:
            assert inputs.found is not None
            shift = inputs.found["shift"].sel(layer=layer).values
            arrays["activation_shift"] = shift.astype(np.float32)
        self._put(group, at, arrays)

    def _put(self, group: GroupWriter, at: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of one item, then flag it."""
        size = sum(
            group.put(name, (at, *(0,) * values.ndim), values[None])
            for name, values in arrays.items()
        )
        group.commit([(at,)])
        self.outcome.wrote(group.template.path, size=size)

    def _block_arrays(self, template: Template, result: BlockResult) -> dict[str, np.ndarray]:
        streams = [str(name) for name in template.coords["stream"][1]]
        kept = template.coords["iteration"][1]
        methods = [str(name) for name in template.coords["rounding_method"][1]]
        compared = np.array(
            [[[_error(result, m, i, s) for i in INPUTS] for m in methods] for s in streams]
        )
        given = [[_error(result, m, _inputs_of(result, m), s) for m in methods] for s in streams]
        losses = [result.losses[i] if i < len(result.losses) else np.nan for i in kept]
        rounding = [result.rounding_losses.get(int(i), np.nan) for i in kept]
        return {
            "output_error": np.array(given),
            **({"method_error": compared} if _compares(template) else {}),
            "output_power": np.array([_mean(_any_errors(result), s, "power") for s in streams]),
            "loss": np.array(losses, np.float32),
            "rounding_loss": np.array(rounding, np.float32),
            "iterations": np.array(len(result.losses), np.int64),
            "seconds": np.array(result.seconds),
        }


def _any_errors(result: BlockResult) -> Errors:
    """Any of the errors: they have the same outputs in common."""
    return result.errors[METHODS[0]][INPUTS[0]]


def _inputs_of(result: BlockResult, method: str) -> str:
    """Inputs of `output_error`: those that AdaRound learned, and for others the first ones."""
    known = result.errors[method]
    return ("learned" if method == METHODS[0] else "first") if len(known) > 1 else INPUTS[0]


def _compares(template: Template) -> bool:
    """Whether errors are kept for each kind of inputs; in groups that older versions began not."""
    return any(array.name == "method_error" for array in template.arrays)


def _error(result: BlockResult, method: str, inputs: str, stream: str) -> float:
    """Mean squared error; NaN where inputs are not quantized so."""
    found = result.errors[method].get(inputs)
    return float("nan") if found is None else _mean(found, stream, "error")


def _mean(errors: Errors, stream: str, of: str) -> float:
    """Mean over elements of a block's output; NaN where it has no such stream."""
    sums: Mapping[str, float] = getattr(errors, of)
    return sums[stream] / errors.count[stream] if stream in sums else float("nan")


def _labels(group: GroupWriter, dim: str) -> list[str]:
    return [str(label) for label in group.template.coords[dim][1]]
