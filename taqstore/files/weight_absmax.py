"""Absmax of each linear's weight columns, out of a model's weight file, by site and layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, SourceError, problem
from taqstore.files.npz import NpzFile
from taqstore.files.refusal import what_it_is
from taqstore.files.safetensors import read_safetensors, tensor_names
from taqstore.names import LayerName, weight_layer


@dataclass(frozen=True)
class WeightAbsmax:
    """What a weight file says of linears.

    Parameters
    ----------
    sites
        Site -> float64 (layer, channel): the largest magnitude over the outputs of every linear
        that reads the tensor (q, k and v together).
    notes
        What was left out.
    """

    sites: dict[str, xr.DataArray]
    notes: list[str] = field(default_factory=list)


def weight_absmax(path: Path) -> WeightAbsmax:
    """Read `.safetensors` or `.npz` with weights ``(out, in)``, or their absmax ``(in,)``.

    Names may be those of a store, of SD3 checkpoints, of diffusers or of DiffusionKit; a trailing
    ``.weight`` is taken off. Biases and what is no linear are passed over, whatever their dtypes.
    Bfloat16 is taken exactly. The convolution that embeds patches is taken as the matrix that
    stores see in it: inputs are a patch's, in the order row, column, channel.

    Raises
    ------
    SourceError
        The file is damaged, a linear's weights are no floats, or linears of one tensor differ in
        their inputs.
    MissingError
        It holds no linear, or is of another kind.
    """
    names, needed = _tensors(path)
    linears = {name: linear for name in names if (linear := weight_layer(name)) is not None}
    passed = len(names) - len(linears)
    found: dict[str, dict[LayerName, np.ndarray]] = {}
    for name, values in needed(linears):
        linear, values = linears[name], _matrix(values)
        if values.dtype.kind != "f" or values.ndim not in (1, 2) or not values.size:
            what, found_here = f"{name} is no float weight (out, in)", _brief(values)
            remedy = "give the model's own weights: F32, F16 or BF16"
            raise SourceError(problem(what, where=str(path), found=found_here, remedy=remedy))
        column = abs(values.astype(np.float64))
        column = column.max(axis=0) if column.ndim == 2 else column
        _add(found.setdefault(linear.site, {}), linear, column, path)
    if not found:
        what = "no weights of a model's linears"
        raise MissingError(problem(what, where=str(path), found=f"{passed} other tensors"))
    notes = [f"{path.name}: {passed} tensors are no linears"] if passed else []
    return WeightAbsmax({site: _array(columns) for site, columns in found.items()}, notes)


def _matrix(values: np.ndarray) -> np.ndarray:
    """A convolution's weight as a matrix; checkpoints have channels first, DiffusionKit last."""
    if values.ndim != 4:
        return values
    last = values.shape[1] == values.shape[2] != values.shape[3]
    ordered = values if last else values.transpose(0, 2, 3, 1)
    return ordered.reshape(len(values), -1)


def _brief(values: np.ndarray) -> str:
    return f"{values.dtype} {values.shape}"


Needed = Callable[[Collection[str]], Iterable[tuple[str, np.ndarray]]]


def _tensors(path: Path) -> tuple[list[str], Needed]:
    """Names of all tensors of a file, and what reads those that are needed."""
    if path.suffix == ".safetensors" and not path.is_dir():
        return tensor_names(path), lambda names: read_safetensors(path, wanted=names.__contains__)
    if path.suffix == ".npz":
        file = NpzFile(path)
        return list(file.names), lambda names: ((name, file.read(name)) for name in names)
    what, remedy = "weights of an unknown kind", "give .safetensors or .npz"
    found = what_it_is(path)
    raise MissingError(problem(what, where=str(path), found=found, remedy=remedy))


def _add(
    columns: dict[LayerName, np.ndarray], linear: LayerName, column: np.ndarray, path: Path
) -> None:
    """Take the larger of what linears of one tensor have."""
    key = linear.input
    known = columns.get(key, column)
    if known.shape != column.shape:
        what = f"linears of {key.full} differ in inputs"
        raise SourceError(problem(what, where=str(path), found=f"{known.size} and {column.size}"))
    columns[key] = np.maximum(known, column)


def _array(columns: dict[LayerName, np.ndarray]) -> xr.DataArray:
    layers = sorted(columns, key=lambda name: name.sort_key)
    widths = {columns[name].size for name in layers}
    if len(widths) > 1:
        what = f"layers of {layers[0].site} differ in inputs"
        raise SourceError(problem(what, found=", ".join(map(str, sorted(widths)))))
    return xr.DataArray(
        np.array([columns[name] for name in layers]),
        {"layer": [name.layer for name in layers]},
        ("layer", "channel"),
    )
