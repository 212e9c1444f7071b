"""What the linears of a weight set lost on the second moments they were rounded with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.kinds.weight_sets import chosen_set, set_groups
from taqstore.names import tensor_site
from taqstore.store.reader import Store, open_store

from .settings import SET
from .statistics import DIAGONAL, NOTHING

_VARIABLES = ("linear_error", "nearest_error", "moment_block", "weight_bits")


def site_errors(store: Store | str | os.PathLike[str], *, set: str = SET) -> list[dict[str, Any]]:
    """A row for each site of a set.

    `ratio` is the mean over linears of what is left by what rounding to nearest on the same grid
    leaves, `worst` the largest; NaN where nothing is known of the inputs. `statistics` is `full`,
    `blocks of 64`, `squares` or `none`; several where layers differ.

    Raises
    ------
    MissingError
        There is no such set, or it was not made by `gptq`.
    """
    opened = open_store(store)
    rows: dict[str, _Site] = {}
    for site, dataset in set_groups(opened, chosen_set(opened, set)).items():
        if "linear_error" not in dataset:
            raise MissingError(problem(f"the set {set} has no errors of linears", where=site))
        rows.setdefault(tensor_site(site), _Site()).add(dataset)
    return [row.row(site) for site, row in rows.items()]


@dataclass
class _Site:
    """Sums of a site over its groups."""

    weights: int = 0
    bits: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def add(self, dataset: xr.Dataset) -> None:
        data = dataset[list(_VARIABLES)].compute()
        error, plain = (data[name].values.ravel() for name in _VARIABLES[:2])
        ratio = np.divide(error, plain, out=np.full(len(error), np.nan), where=plain > 0)
        self.ratios += ratio.tolist()
        self.weights += len(error) * dataset.sizes["out"] * dataset.sizes["in"]
        self.bits += map(int, np.unique(data["weight_bits"]))
        self.kinds += (_kind(int(n), dataset.sizes["in"]) for n in np.unique(data["moment_block"]))

    def row(self, site: str) -> dict[str, Any]:
        known = [ratio for ratio in self.ratios if not np.isnan(ratio)]
        return {
            "site": site,
            "linears": len(self.ratios),
            "weights": self.weights,
            "bits": _listed(map(str, self.bits)),
            "statistics": _listed(self.kinds),
            "ratio": float(np.mean(known)) if known else float("nan"),
            "worst": max(known, default=float("nan")),
        }


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _kind(block_size: int, inputs: int) -> str:
    if block_size in (NOTHING, DIAGONAL):
        return {NOTHING: "none", DIAGONAL: "squares"}[block_size]
    return "full" if block_size >= inputs else f"blocks of {block_size}"
