"""SHA-256 of what runs, so that trajectories of one thing are never taken for those of another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np

from taqstore.names import LayerName

from ..models.load import LoadedModel
from ..models.quantized.quantized_model import LinearPlan


def plans_digest(model: LoadedModel, plans: Mapping[LayerName, LinearPlan]) -> str:
    """Of a model whose linears run by these plans: its weights, dtype, and every plan's arrays."""
    found = hashlib.sha256(_header([model.row.name, model.digest, model.dtype]))
    for name in sorted(plans, key=lambda name: name.full):
        plan = plans[name]
        arrays = {"weight": plan.weight}
        if plan.input is not None:
            arrays |= {one.name: getattr(plan.input, one.name) for one in fields(plan.input)}
        for key, values in arrays.items():
            if values is not None:
                whole = np.ascontiguousarray(values)
                found.update(_header([name.full, key, str(whole.dtype), list(whole.shape)]))
                found.update(whole.data)
    return found.hexdigest()


def folder_digest(model: LoadedModel, folder: Path) -> str:
    """Of a folder that holds a whole model: name and content of its files."""
    found = hashlib.sha256(_header([model.row.name, model.dtype]))
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        found.update(_header([path.name, path.stat().st_size]))
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def _header(told: list[object]) -> bytes:
    return json.dumps(told).encode() + b"\n"
