"""The weights of the model that a store names, as analyses ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, TaqError, problem
from taqstore.names import ACTIVATIONS, LATENTS, SITES
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store

from ..models.load import LoadedModel
from .groups import RUN
from .trajectories import load_model_of


def named_model(store: Store) -> str | None:
    """The model that made the activations of a store, or its latents; None where none is named."""
    run = _run(store)
    return None if run is None else str(run["model"])


def model_weight_absmax(store: Store) -> dict[str, xr.DataArray]:
    """Absmax of each linear's weight columns, of the model that a store names.

    Returns
    -------
    Site -> float64 (layer, channel): the largest magnitude over the outputs of every linear that
    reads the tensor (q, k and v together).

    Raises
    ------
    MissingError
        The store names no model, or the model does not load, or with other weights than it had.
    """
    run = _run(store)
    if run is None:
        raise MissingError(problem("no model is named", where=str(store.location)))
    try:
        # Text encoders and the schedule have no part in this.
        loaded = load_model_of({**run, "use_t5": False, "shift": None}, local_ckpt=None)
    except TaqError as error:
        what = f"the weights of {run['model']}, which the store names, cannot be had: {error}"
        raise MissingError(
            problem(what, remedy="give --weights FILE.safetensors or .npz of the model")
        ) from error
    return _absmax(loaded)


def _run(store: Store) -> Mapping[str, Any] | None:
    paths = [*(f"{ACTIVATIONS}/{site}" for site in SITES), LATENTS]
    runs = (attribute_of(store[path], RUN) for path in paths if path in store)
    return next((run for run in runs if run is not None), None)


def _absmax(model: LoadedModel) -> dict[str, xr.DataArray]:
    found: dict[str, dict[str, np.ndarray]] = {}
    for one in model.inputs():
        columns = [abs(reader.matrix()).max(axis=0) for reader in one.readers]
        found.setdefault(one.site, {})[one.layer] = np.max(columns, axis=0).astype(np.float64)
    return {
        site: xr.DataArray(
            np.stack(list(columns.values())), {"layer": list(columns)}, ("layer", "channel")
        )
        for site, columns in found.items()
    }
