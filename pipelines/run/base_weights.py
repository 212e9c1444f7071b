"""Every tensor of the model that a store names, as exports of whole models want them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MissingError, StoreError, problem
from taqstore.export.packed.base import Base
from taqstore.export.packed.layouts import MLX
from taqstore.files.safetensors import Later, SafetensorsFile
from taqstore.names import ACTIVATIONS, LATENTS, SECOND_MOMENTS, WEIGHTS
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store

from ..models.adapter import prefix_of
from ..models.table import ModelRow, find_model
from .groups import RUN
from .parameters import checkpoint_file, parameters


def base_weights(
    store: Store, layout: str, *, checkpoint: str | os.PathLike[str] | None = None
) -> Base:
    """The tensors of the model of a store.

    Parameters
    ----------
    store
        Its runs name the model.
    layout
        ``mlx``: every parameter under DiffusionKit's names; ``checkpoint``: the file's own tensors
        of the denoiser.
    checkpoint
        The file; None: that of the model, which comes with this package or from the hub.

    Raises
    ------
    MissingError
        The store names no model.
    StoreError
        The file is not the one that the store was made with.
    TaqError
        The file cannot be had, or lacks tensors of the model.
    """
    runs = list(_runs(store))
    named = next((run["model"] for run in runs if run.get("model")), None)
    if named is None:
        what = "no group of the store names its model, whose weights complete this"
        remedy = "use a store that taqstore generate or taqstore collect filled"
        raise MissingError(problem(what, where=str(store.location), remedy=remedy))
    row = find_model(str(named))
    path = checkpoint_file(row, checkpoint)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    for run in runs:
        if run.get("weights") not in (None, digest):
            what = f"the store was made with other weights of {row.name}"
            found = f"SHA-256 {digest[:12]}, not {str(run['weights'])[:12]}"
            remedy = "name the same checkpoint with --base"
            raise StoreError(problem(what, where=str(path), found=found, remedy=remedy))
    tensors = parameters(row, path) if layout == MLX else _own(row, path)
    return Base(tensors, row.name, digest)


def _own(row: ModelRow, path: Path) -> Mapping[str, np.ndarray | Later]:
    """A checkpoint's tensors, those of the denoiser alone."""
    file, prefix = SafetensorsFile(path), prefix_of(row)
    return {name: file[name] for name in file if name.startswith(prefix)}


def _runs(store: Store) -> list[Mapping[str, Any]]:
    """What groups of the store say of the runs that made them."""
    paths = [path for path in store if path in _NAMING or path.startswith(_BELOW)]
    return [run for path in paths if (run := attribute_of(store[path], RUN)) is not None]


_NAMING = (ACTIVATIONS, LATENTS, SECOND_MOMENTS, WEIGHTS)
_BELOW = tuple(f"{path}/" for path in _NAMING)
