"""The parameters of a model as its checkpoint has them: names of DiffusionKit, dtypes of the file.

Loading a pipeline casts every parameter; here nothing is, and one is in memory at a time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import TaqError, problem
from taqstore.files.safetensors import BFLOAT16, Later

from ..models.adapter import known, prefix_of
from ..models.backend import Backend, backend
from ..models.limits import config_of
from ..models.table import ModelRow, resolve


def checkpoint_file(row: ModelRow, given: str | os.PathLike[str] | None = None) -> Path:
    """The weights file of a model: what is given, what this package has, or that of the hub.

    Raises
    ------
    TaqError
        It is not there.
    """
    if given is not None or row.checkpoint:
        path = Path(given if given is not None else resolve(row.checkpoint)())
        if not path.is_file():
            raise TaqError(problem("no such checkpoint", where=str(path)))
        return path
    libraries = backend()
    io = libraries.model_io
    try:
        with known(libraries, row, None, None):
            return Path(io.hf_hub_download(row.hub, io._MMDIT[row.hub][row.hub]))
    except Exception as error:
        found = " ".join(str(error).split()) or type(error).__name__
        remedy = "check that the hub can be reached (HF_HOME, HF_TOKEN), or give --base"
        what = f"the weights of {row.name} cannot be had"
        raise TaqError(problem(what, where=row.hub, found=found, remedy=remedy)) from error


def parameters(row: ModelRow, path: Path) -> Mapping[str, Later]:
    """Every parameter of a model out of its checkpoint, under DiffusionKit's names.

    Raises
    ------
    TaqError
        The file is not in the model's layout, lacks a parameter, or has one of another shape.
    """
    libraries = backend()
    wanted = shapes_of(row)
    try:
        found = _adjusted(libraries, row, path)
    except TaqError:
        raise
    except Exception as error:
        raise _unlike(row, path, " ".join(str(error).split())) from error
    missing = [name for name in wanted if name not in found]
    if missing:
        raise _unlike(row, path, f"no {missing[0]}, nor {len(missing) - 1} others")
    for name, shape in wanted.items():
        if tuple(found[name].shape) != shape:
            raise _unlike(row, path, f"{name} is {tuple(found[name].shape)}, not {shape}")
    return {name: _later(row, path, name, found[name]) for name in wanted}


def shapes_of(row: ModelRow) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter of a model by DiffusionKit's name; nothing is loaded."""
    libraries = backend()
    model = libraries.model_io.MMDiT(config_of(row))
    flat = libraries.utils.tree_flatten(model.parameters())
    return {name: tuple(value.shape) for name, value in flat}


def _adjusted(libraries: Backend, row: ModelRow, path: Path) -> dict[str, Any]:
    io, config = libraries.model_io, config_of(row)
    with known(libraries, row, path, None, prefix=prefix_of(row)):
        tensors = io.mx.load(str(path))
        if prefix_of(row):
            adjusted = io.mmdit_state_dict_adjustments(tensors, prefix=prefix_of(row))
        else:
            adjusted = io.flux_state_dict_adjustments(
                tensors, prefix="", hidden_size=config.hidden_size, mlp_ratio=config.mlp_ratio
            )
    return dict(adjusted)


def _later(row: ModelRow, path: Path, name: str, value: Any) -> Later:
    libraries = backend()
    mx = libraries.mx
    half = value.dtype == mx.bfloat16
    dtype = BFLOAT16 if half else np.dtype(str(value.dtype).rpartition(".")[2])

    def make() -> np.ndarray:
        # From the file again: an array that has been evaluated keeps its memory.
        fresh = mx.contiguous(_adjusted(libraries, row, path)[name])
        return np.array(fresh.view(mx.uint16)).view(BFLOAT16) if half else np.array(fresh)

    return Later(dtype, tuple(value.shape), make)


def _unlike(row: ModelRow, path: Path, found: str) -> TaqError:
    what, remedy = f"no checkpoint of {row.name}", "check the file's layout"
    return TaqError(problem(what, where=str(path), found=found, remedy=remedy))
