"""The state of an optimisation on disk, so that it goes on where it was stopped, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taqstore.files.staged import whole_file

from ..backend import backend
from .optimise import Optimiser

_ABOUT, _KEPT, _SECONDS = "about", "kept", "seconds"


@dataclass
class Kept:
    """What is kept beside an optimiser's state.

    Parameters
    ----------
    rounding
        Rounding terms by iteration.
    seconds
        Time that the sessions before took for what the state holds.
    """

    rounding: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0


def save_state(path: Path, optimiser: Optimiser, *, about: Mapping[str, Any], kept: Kept) -> None:
    """Write the state; the file appears whole or not at all.

    Parameters
    ----------
    about
        JSON object that says what is being optimised and how.
    kept
        With the time of all sessions up to now.
    """
    mx, utils = backend().mx, backend().utils
    tensors = dict(utils.tree_flatten(optimiser.state()))
    metadata = {
        _ABOUT: json.dumps(about, sort_keys=True),
        _KEPT: json.dumps(list(kept.rounding.items())),
        _SECONDS: json.dumps(kept.seconds),
    }
    with whole_file(path, force=True) as fresh:
        mx.save_safetensors(str(fresh), tensors, metadata)


def load_state(path: Path, optimiser: Optimiser, *, about: Mapping[str, Any]) -> Kept:
    """Go on from a saved state, where there is one of this very optimisation; what it kept."""
    found = _read(path, about)
    if found is None:
        return Kept()
    tensors, metadata = found
    optimiser.restore(backend().utils.tree_unflatten(list(tensors.items())))
    rounding = {int(at): float(value) for at, value in json.loads(metadata[_KEPT])}
    return Kept(rounding, float(metadata.get(_SECONDS, 0.0)))


def iterations_saved(path: Path, *, about: Mapping[str, Any]) -> int:
    """Iterations that a saved state has behind it; 0 where there is none of this optimisation."""
    found = _read(path, about)
    return 0 if found is None else len(found[0]["losses"])


def _read(path: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]] | None:
    """Tensors and metadata of a state; None where there is none of this optimisation."""
    mx = backend().mx
    if not path.exists():
        return None
    try:
        tensors, metadata = mx.load(str(path), return_metadata=True)
        mx.eval(tensors)
    except (RuntimeError, ValueError):
        return None  # damaged: the block is begun again
    same = metadata.get(_ABOUT) == json.dumps(about, sort_keys=True)
    return (tensors, metadata) if same else None
