"""What a store knows of a linear's input: its second moment, its squares alone, or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from taqstore.errors import MissingError, StoreError, problem
from taqstore.kinds.second_moments import diagonal_of, moments_of
from taqstore.names import ACTIVATIONS, LATENTS, SECOND_MOMENTS, split_group
from taqstore.quantization.gptq import Prepared, prepare
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store

from ..models.inputs import Input
from ..run.groups import RUN

KEPT = ("model", "weights", "dtype")
"""Of a run: what statistics and weights must agree in."""
_TELLING = (SECOND_MOMENTS, ACTIVATIONS, LATENTS)
NOTHING = 0
DIAGONAL = 1


@dataclass(frozen=True)
class Known:
    """The second moment of one input.

    Parameters
    ----------
    block_size
        Inputs of a block of it; `DIAGONAL`: squares alone; `NOTHING`: not known.
    channels
        Of the input.
    prepared
        Of nothing: a diagonal of zeros.
    """

    block_size: int
    channels: int
    prepared: Prepared

    @property
    def diagonal(self) -> np.ndarray | None:
        """Sums of squares ``(in,)``, or None."""
        if self.block_size == NOTHING:
            return None
        squares: np.ndarray = np.einsum("bii->bi", self.prepared.blocks).ravel()[: self.channels]
        return squares


@dataclass(frozen=True)
class SiteStatistics:
    """Where the statistics of a site's inputs are.

    Parameters
    ----------
    site
        Such as `mlp.fc2`.
    path
        Group that they are in; empty: there is none.
    weights
        (step_group,) what each group of steps counts; None: 1 each.
    """

    store: Store
    site: str
    path: str
    weights: np.ndarray | None = None

    @property
    def run(self) -> dict[str, Any] | None:
        """What made them; None where they do not say it or there are none."""
        return attribute_of(self.store[self.path], RUN) if self.path else None

    def summary(self) -> dict[str, Any]:
        """What groups made from these statistics must agree in."""
        if not self.path:
            return {}
        dataset = self.store[self.path]
        written = dataset.get("written")
        # Where every item that is read is whole there is no mask.
        items = dataset["count"].isel(layer=0).size if written is None else int(written.sum())
        return {"group": self.path, "items": items, RUN: self.run or {}}

    def of(self, given: Input, *, damping: float) -> Known:
        """Second moment of one input, ready for GPTQ.

        Raises
        ------
        StoreError
            It is of another number of channels, or not finite.
        """
        found, size = None, NOTHING
        if self.path.startswith(SECOND_MOMENTS):
            moments = moments_of(self.store, given.layer, self.site, weights=self.weights)
            if moments is not None:
                found, size, channels = moments.blocks, moments.block_size, moments.channels
        if found is None:
            found = diagonal_of(self.store, given.layer, self.site)
            size = NOTHING if found is None else DIAGONAL
            channels = given.channels if found is None else len(found)
        if channels != given.channels:
            what = f"{given.layer} has statistics of {channels} channels, its linears read"
            raise StoreError(problem(f"{what} {given.channels}", where=self.path))
        if found is None:
            found = np.zeros(channels)
        return Known(size, channels, prepare(found, damping=damping))


def statistics_of(
    store: Store, sites: Iterable[str], *, sigma_power: float
) -> dict[str, SiteStatistics]:
    """Statistics of each site: second moments before activations.

    Raises
    ------
    MissingError
        No second moments of a site are complete.
    """
    return {site: _site(store, site, sigma_power) for site in sites}


def path_of(store: Store, site: str) -> str:
    """Group with the statistics of a site's inputs; empty: there is none."""
    paths = (f"{kind}/{site}" for kind in (SECOND_MOMENTS, ACTIVATIONS))
    return next((path for path in paths if path in store), "")


def _site(store: Store, site: str, sigma_power: float) -> SiteStatistics:
    path = path_of(store, site)
    weighed = split_group(path)[0] == SECOND_MOMENTS
    weights = _weights(store, path, sigma_power) if weighed else None
    return SiteStatistics(store, site, path, weights)


def _weights(store: Store, path: str, power: float) -> np.ndarray | None:
    """Mean of ``sigma ** power`` over the steps of each group, the mean over all steps being 1."""
    if not power:
        return None
    found = store[path]
    level = found["sigma"].values.astype(np.float64) ** power
    of, groups = found["step_group_of"].values, found.sizes["step_group"]
    sums, counts = np.bincount(of, level, groups), np.bincount(of, minlength=groups)
    return np.asarray(sums / counts / level.mean())


def run_of_statistics(
    store: Store, found: dict[str, SiteStatistics], *, model: str | None
) -> dict[str, Any]:
    """Model, weights and dtype that the statistics were made with, all of one run.

    Where none are used, those of any statistics or latents of the store.

    Raises
    ------
    MissingError
        They do not say it, and no model is named.
    StoreError
        They are not of one model.
    """
    used = [one.path for one in found.values() if one.path]
    others = [path for path in store if split_group(path)[0] in _TELLING]
    runs = {path: attribute_of(store[path], RUN) for path in used or others}
    told = {path: {name: run.get(name) for name in KEPT} for path, run in runs.items() if run}
    if not told:
        if model is None:
            what = "the statistics do not say which model they are of"
            raise MissingError(problem(what, remedy="name it with --model"))
        return {"model": model, "weights": None, "dtype": None}
    first, *others = told
    for path in others:
        if told[path] != told[first]:
            what = f"{first} and {path} are not of one model"
            remedy = "choose --sites of one, or collect them together"
            raise StoreError(problem(what, remedy=remedy))
    if model not in (None, told[first]["model"]):
        what = f"these statistics are of {told[first]['model']}, not {model}"
        raise StoreError(problem(what, where=first, remedy="leave --model out"))
    return told[first]
