"""Formats that a target is quantized in: one side of a variant, the other in floating point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.asked import meant
from taqstore.errors import MisuseError, problem
from taqstore.kinds.quantized_linears import run_of
from taqstore.kinds.sensitivity import check_format, format_bits, quantizes_inputs
from taqstore.kinds.weight_sets import FORMATS, folder_of, set_folders, set_groups, weight_sets
from taqstore.names import ACTIVATIONS, LATENTS, SECOND_MOMENTS, SITES, kind_of
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store

from ..evaluate.variants import COMFY_GPTQ, FLOAT, MIXED, Variant
from ..run.groups import RUN

DEFAULT = {"step": "a4-static"}
"""Format of a unit where none is named; of the others `DEFAULT_WEIGHTS`."""
DEFAULT_WEIGHTS = "mlx-w4-g64"
"""What runs packed as it is, of every linear of a model: 4 bits tell linears apart, 8 do not."""


@dataclass(frozen=True)
class Format:
    """A format by its name; make it with `parse_format`.

    Parameters
    ----------
    name
        Such as `mlx-w4-g64`, `a4-static`, or a weight set's.
    variant
        The variant that quantizes all linears so, the other side in floating point.
    """

    name: str
    variant: Variant

    @property
    def of_inputs(self) -> bool:
        """Whether inputs are quantized, and weights left as they are."""
        return self.variant.weights == FLOAT

    def about(self, store: Store) -> dict[str, Any]:
        """What groups of the format must agree in: what of the store it is made from, too."""
        found: dict[str, Any] = {"format": self.name, "bits": format_bits(self.name)}
        if self.of_inputs:
            return found | {"statistics": statistics(store, [f"{ACTIVATIONS}/{s}" for s in SITES])}
        if self.variant.is_set:
            name = self.variant.weights
            run, folder = run_of(store, name), folder_of(store, name)
            sites = set_groups(store, name)
            content = {site: content_of(store, f"{folder}/{site}") for site in sites}
            bits = float(run.get("bits") or 0)
            return found | {"bits": bits, "set": run | {"content": content}}
        if self.variant.weights == COMFY_GPTQ:
            return found | {"statistics": statistics(store, of_kinds(store, SECOND_MOMENTS))}
        return found


def parse_format(name: str, store: Store, *, unit: str) -> Format:
    """Understand a format.

    Raises
    ------
    MisuseError
        It is no format of this unit, or no weight set of the store.
    """
    check_format(name)
    if name == FLOAT:
        raise MisuseError(problem("float quantizes nothing", remedy="name another --format"))
    if quantizes_inputs(name):
        return Format(name, Variant.parse(f"{FLOAT}/{name}"))
    variant = Variant.parse(name)
    if variant.steps or variant.said or variant.blocks or variant.weights == "mixed":
        raise MisuseError(problem(f"{name!r} is no format of weights or inputs alone"))
    if variant.is_set and variant.weights not in set_folders(store):
        known = (*(f for f in FORMATS if f not in (FLOAT, MIXED)), *weight_sets(store))
        remedy = f"{meant(name, known)}; or inputs like a4-static"
        raise MisuseError(problem(f"format {name!r} is not known", remedy=remedy))
    if unit == "step":
        what = f"{name}: weights are the same at all steps"
        raise MisuseError(problem(what, remedy="--unit step takes inputs, like a4-static"))
    return Format(name, variant)


def default_format(unit: str) -> str:
    """Format of a unit where none is named."""
    return DEFAULT.get(unit, DEFAULT_WEIGHTS)


def of_kinds(store: Store, *kinds: str) -> list[str]:
    """Paths of the groups of some kinds that have a group for each site."""
    return [path for path in store.paths if kind_of(path) in kinds]


def statistics(store: Store, paths: Sequence[str]) -> dict[str, Any]:
    """How much of each group is whole, which latents it was observed on, and its content."""
    found = {}
    for path in paths:
        if path in store:
            run: Mapping[str, Any] = attribute_of(store[path], RUN, {})
            items = int(store.mask(path).sum())
            found[path] = {
                "items": items,
                LATENTS: str(run.get(LATENTS, "")),
                "content": content_of(store, path),
            }
    return found


def content_of(store: Store, path: str) -> str:
    """16 hex digits of a SHA-256 of what identifies the files of a group's items.

    Settings do not tell a group from one made with --force of other statistics. Nothing is read of
    the data; of a store of format 1, which has no records of files, it is empty.
    """
    name = next(iter(store[path].data_vars), None)
    files = None if name is None else store.identities(path, str(name))
    if files is None:
        return ""
    found = hashlib.sha256()
    for item in np.ndindex(*files.items.grid):
        owned = files.items.owned(item)
        if owned is not None:
            found.update(json.dumps([item, sorted(owned.items())]).encode())
    return found.hexdigest()[:16]
