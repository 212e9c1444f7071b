"""Extra error of a run under quantizers that another run was calibrated to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import numpy.typing as npt
import xarray as xr

from taqstore.analysis.error import error
from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.steps import Cuts, per_step
from taqstore.analysis.reruns.held import Held
from taqstore.analysis.reruns.matching import Matched
from taqstore.analysis.shared.inputs import Bounds
from taqstore.quantization.search import Scheme

Floats = npt.NDArray[np.float64]

_NAME = "drift"
# Bytes of the histograms of one lot of deals.
_LOT = 1 << 26


@dataclass(frozen=True)
class Chooser:
    """How ranges are chosen: kind of quantizer, rule, and cuts in steps of the first run."""

    scheme: Scheme
    rule: Clip
    cuts: Cuts

    def bounds(self, dataset: xr.Dataset, cuts: Cuts) -> Bounds:
        """Ranges at every step."""
        return per_step(dataset, cuts, self.rule, self.scheme, analysis=_NAME)

    def sqnr(self, dataset: xr.Dataset, bounds: Bounds) -> xr.DataArray:
        """SQNR in dB of values in these ranges."""
        scheme = self.scheme
        found = error(
            dataset,
            bits=scheme.bits,
            symmetric=scheme.symmetric,
            narrow_range=scheme.narrow_range,
            bounds=(bounds.lower, bounds.upper),
        )
        return found["sqnr"]


@dataclass(frozen=True)
class Pair:
    """One site of two runs, at the layers that both have.

    Parameters
    ----------
    first
        At its own steps.
    second
        At its own steps.
    matched
        Which of the first run's steps are nearest to the second one's.
    """

    site: str
    first: xr.Dataset
    second: xr.Dataset
    matched: Matched

    def linears(self, found: xr.DataArray) -> list[str]:
        """Names of the linears of a result, in order: ``mm0.img.mlp.fc2``."""
        layers = [str(layer) for layer in found["layer"].values]
        if "projection" not in found.dims:
            return [f"{layer}.{self.site}" for layer in layers]
        parent = self.site.rpartition(".")[0]
        projections = [str(name) for name in found["projection"].values]
        return [f"{layer}.{parent}.{name}" for layer in layers for name in projections]

    def priced(self, how: Chooser) -> xr.Dataset:
        """SQNR at every step: (linear, step) `calibrated_sqnr`, `own_sqnr`, `drifted_sqnr`."""
        at, labels = self.matched.index, self.matched.second
        chosen = how.bounds(self.first, how.cuts)
        calibrated = how.sqnr(self.first, chosen).isel(step=at)
        theirs = Bounds(*(end.isel(step=at) for end in chosen))
        own = how.bounds(self.second, self.matched.cuts(how.cuts))
        found = {
            "calibrated_sqnr": calibrated,
            "own_sqnr": how.sqnr(self.second, own),
            "drifted_sqnr": how.sqnr(self.second, _at(theirs, labels)),
        }
        lazy = {name: values.data for name, values in found.items()}
        # Together: what they share is read once.
        (known,) = dask.compute(lazy)  # type: ignore[no-untyped-call,attr-defined]
        ready = {n: values.copy(data=known[n]) for n, values in found.items()}
        return xr.Dataset({n: self._flat(values, labels) for n, values in ready.items()})

    def _flat(self, values: xr.DataArray, labels: npt.NDArray[Any]) -> xr.DataArray:
        inner = [dim for dim in ("layer", "projection") if dim in values.dims]
        ordered = values.transpose(*inner, "step").values.reshape(-1, len(labels))
        sigma = self.second.coords.get("sigma")
        coords = {"linear": self.linears(values), "step": labels}
        if sigma is not None:
            coords["sigma"] = ("step", sigma.values)
        return xr.DataArray(ordered, dims=("linear", "step"), coords=coords)

    def hold(self, kept: Sequence[int], images: tuple[int, int]) -> Held:
        """Batches of both in memory, the second's last, with linears for layers.

        Parameters
        ----------
        kept
            Positions of the second run's steps, whose labels both then have.
        images
            So many of the first run and of the second.
        """
        labels = self.matched.second[list(kept)]
        first = self.first.isel(step=self.matched.index[list(kept)], batch=slice(images[0]))
        second = self.second.isel(step=list(kept), batch=slice(images[1]))
        names = self.linears(self.first["layer"])
        sides = (side.assign_coords(step=labels, layer=names) for side in (first, second))
        one, other = (Held.of(side) for side in sides)
        return one.beside(other)


def _at(bounds: Bounds, labels: npt.NDArray[Any]) -> Bounds:
    names = ("step", "sigma", "timestep")
    plain = (end.drop_vars([n for n in names if n in end.coords]) for end in bounds)
    return Bounds(*(end.assign_coords(step=labels) for end in plain))


def dealt(held: Held, how: Chooser, cuts: Cuts, orders: npt.NDArray[np.int64], hand: int) -> Floats:
    """Extra error of the second hand under the first's quantizers, in dB, over all steps.

    Parameters
    ----------
    cuts
        In labels of the steps that are held.
    orders
        As of `reruns.deals`.
    hand
        Batches of the first hand.

    Returns
    -------
    float64 ``(deal, linear)``.
    """
    rows = len(held.step) * len(held.layer) * held.layout.bins * 8
    row = how.rule.row
    pooled = row.merges or row.needs == "extrema"  # these ask extrema batch by batch
    lot = max(1, _LOT // (rows * (1 if pooled else orders.shape[1])))
    found = []
    for start in range(0, len(orders), lot):
        hands = np.split(orders[start : start + lot], [hand], axis=1)
        first, second = (held.dealt(picks, pooled=pooled) for picks in hands)
        theirs, own = (how.bounds(side, cuts) for side in (first, second))
        drifted, best = (how.sqnr(second, bounds) for bounds in (theirs, own))
        dims = ("deal", "layer", "step")
        found.append(extra_error(*(s.transpose(*dims).values for s in (best, drifted))))
    return np.concatenate(found)


def over_steps(sqnr: npt.NDArray[Any]) -> Floats:
    """SQNR in dB of all steps, the last axis: of the mean of noise over signal."""
    noise = 10 ** (-np.asarray(sqnr, np.float64) / 10)
    known = ~np.isnan(noise)
    count = known.sum(axis=-1)
    total = np.where(known, noise, 0.0).sum(axis=-1)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(-10 * np.log10(mean))


def extra_error(own: npt.NDArray[Any], drifted: npt.NDArray[Any]) -> Floats:
    """What is lost in dB over all steps, the last axis; 0 where neither errs."""
    best, found = over_steps(own), over_steps(drifted)
    with np.errstate(invalid="ignore"):
        return np.where(best == found, 0.0, best - found)
