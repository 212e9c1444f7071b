"""Entries of `block_metrics` of an AdaRound output, as items of the group `reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as data_field
from typing import Any

import numpy as np

from taqstore.errors import SourceError
from taqstore.files.refusal import problem
from taqstore.kinds.weight_sets import ADAROUND
from taqstore.kinds.weights import INPUTS, METHODS, reconstruction_template
from taqstore.layout.template import Template
from taqstore.names import STREAMS, LayerName

from .json_fields import field

HISTORY, STRIDE = "loss_history_stride100", 100
ByStream = Mapping[str, float]


@dataclass(frozen=True)
class BlockMetrics:
    """What an output tells of one block; NaN stands for what it does not.

    Parameters
    ----------
    streams
        Streams that the block has linears in.
    losses
        Loss and rounding term by iteration.
    errors
        ``{inputs: {method: {stream: error}}}``; inputs `""` is `output_error`.
    """

    block: str
    streams: tuple[str, ...]
    iterations: int
    seconds: float
    losses: Mapping[int, tuple[float, float]]
    power: ByStream = data_field(default_factory=dict)
    errors: Mapping[str, Mapping[str, ByStream]] = data_field(default_factory=dict)

    def arrays(self, template: Template) -> dict[str, np.ndarray]:
        """Arrays of the block's item."""
        streams, kept = (template.coords[name][1].tolist() for name in ("stream", "iteration"))
        nothing = float("nan")
        losses = [self.losses.get(i, (nothing, nothing)) for i in kept]
        loss, rounding = np.array(losses, np.float32).reshape(-1, 2).T
        found = {
            "output_error": self._by_method("", streams),
            "output_power": np.array([self.power.get(s, nothing) for s in streams]),
            "loss": loss,
            "rounding_loss": rounding,
            "iterations": np.array(self.iterations, np.int64),
            "seconds": np.array(self.seconds),
        }
        if any(array.name == "method_error" for array in template.arrays):
            rows = [self._by_method(name, streams) for name in INPUTS]
            found["method_error"] = np.stack(rows, axis=-1)
        return found

    def _by_method(self, inputs: str, streams: Sequence[str]) -> np.ndarray:
        errors = self.errors.get(inputs, {})
        rows = [[errors.get(m, {}).get(s, np.nan) for m in METHODS] for s in streams]
        return np.array(rows, np.float64)


def metrics_template(
    metrics: Sequence[BlockMetrics], attrs: Mapping[str, Any], *, set: str = ADAROUND
) -> Template:
    """Template of `reconstruction` for all blocks of an output, of a weight set."""
    streams = {stream for one in metrics for stream in one.streams}
    return reconstruction_template(
        set=set,
        blocks=[one.block for one in metrics],
        streams=[stream for stream in STREAMS if stream in streams],
        iterations=sorted({i for one in metrics for i in one.losses} or {0}),
        compared=any({*one.errors} - {""} for one in metrics),
        attrs=attrs,
    )


def read_metrics(
    entry: Mapping[str, Any], linears: Sequence[LayerName], where: str
) -> BlockMetrics:
    """One entry, checked.

    Raises
    ------
    SourceError
        A field that is there is not what the format says.
    """
    count = "iterations" if "iterations" in entry else "iters"
    by_method = _by_method(entry, "output_error", where)
    by_inputs = _object(entry, "errors", where)
    compared = {i: _by_method(by_inputs, i, f"{where}: errors") for i in by_inputs}
    strange = sorted(set(compared) - set(INPUTS))
    if strange:
        raise SourceError(problem("unknown inputs", where=f"{where}: errors", found=strange[0]))
    return BlockMetrics(
        field(entry, "block_name", str, where=where),
        tuple({linear.stream: None for linear in linears}),
        field(entry, count, int, where=where) if count in entry else 0,
        field(entry, "seconds", float, where=where) if "seconds" in entry else float("nan"),
        _losses(entry, where),
        _by_stream(entry, "output_power", where),
        {**({"": by_method} if by_method else {}), **compared},
    )


def _losses(entry: Mapping[str, Any], where: str) -> dict[int, tuple[float, float]]:
    """Taqstore's `losses`, or the source's history of every hundredth iteration."""
    if "losses" not in entry:
        history = _numbers(entry, HISTORY, where)
        return {i * STRIDE: (loss, float("nan")) for i, loss in enumerate(history)}
    losses, inside = _object(entry, "losses", where), f"{where}: losses"
    at = _numbers(losses, "iteration", inside)
    columns = [_numbers(losses, name, inside) for name in ("loss", "rounding_loss")]
    if any(len(column) != len(at) for column in columns) or any(i != int(i) for i in at):
        raise SourceError(problem("losses do not fit their iterations", where=inside))
    return {int(i): (loss, term) for i, loss, term in zip(at, *columns, strict=True)}


def _numbers(document: Mapping[str, Any], key: str, where: str) -> list[float]:
    """A list of numbers, NaN for null; empty where there is none."""
    if key not in document:
        return []
    values = {str(i): v for i, v in enumerate(field(document, key, list, where=where))}
    inside = f"{where}: {key}"
    return [
        float("nan") if value is None else field(values, i, float, where=inside)
        for i, value in values.items()
    ]


def _by_method(document: Mapping[str, Any], key: str, where: str) -> dict[str, dict[str, float]]:
    found = _object(document, key, where)
    return {name: _by_stream(found, name, f"{where}: {key}") for name in found}


def _by_stream(document: Mapping[str, Any], key: str, where: str) -> dict[str, float]:
    found = _object(document, key, where)
    return {name: field(found, name, float, where=f"{where}: {key}") for name in found}


def _object(document: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    return field(document, key, dict, where=where) if key in document else {}
