"""What is judged: variants of a model, and folders of packed weights; each with its digest."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taqstore.store.reader import Store

from ..evaluate.linears_of_variant import Options, Planner
from ..evaluate.variants import Variant
from ..judge.digest import folder_digest, plans_digest
from ..models.load import LoadedModel
from ..models.quantized.quantized_model import quantize
from ..run.trajectories import load_model_of

PACKED = "packed:"


@dataclass(frozen=True)
class Subject:
    """One thing that is judged.

    Parameters
    ----------
    name
        Of the variant; of a folder, `packed:` and its name.
    digest
        SHA-256 of all that makes it run otherwise; empty: it is the model as it is.
    model
        Makes it, when it has to run.
    average_bits
        Of a weight of the model, as MLX packs it, weights that stay as they are with 16; None: it
        is not known.
    """

    name: str
    digest: str
    model: Callable[[], LoadedModel]
    average_bits: float | None = None


def planner_of(
    model: LoadedModel, store: Store, options: Options, ways: Sequence[Variant]
) -> Planner:
    """Plans of these variants, all of which can run.

    Raises
    ------
    MissingError
        The store lacks what one needs.
    """
    sets = dict.fromkeys(way.weights for way in ways if way.is_set)
    planner = Planner(model, store, options, tuple(sets))
    for way in ways:
        planner.check(way)
    return planner


def subject_of(way: Variant, planner: Planner) -> Subject:
    """A variant; its plans are held until it has run."""
    plans = planner.plans(way)
    if not plans:
        return Subject(way.name, "", lambda: planner.model)
    digest = plans_digest(planner.model, plans)
    return Subject(
        way.name, digest, lambda: quantize(planner.model, plans), _average_bits(way, planner)
    )


def _average_bits(way: Variant, planner: Planner) -> float:
    rounded, packed = planner.packed(way)
    total = planner.weights.total
    return (8 * packed + 16 * (total - rounded)) / total


def packed_name(folder: str | os.PathLike[str]) -> str:
    """What a folder of packed weights is called."""
    return PACKED + Path(folder).resolve().name


def packed_subject(folder: Path, model: LoadedModel, run: dict[str, Any]) -> Subject:
    """A folder of `taqstore export mlx`, whose linears stay packed.

    Raises
    ------
    SourceError
        It is no such folder, or of another model.
    """
    loaded = load_model_of({**run, "weights": None}, local_ckpt=folder)
    return Subject(packed_name(folder), folder_digest(model, folder), lambda: loaded)
