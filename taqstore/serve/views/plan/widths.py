"""A budget of average bits moved by hand: which inputs get how many, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import analysis_shown
from taqstore.statistics.bins import Floats

if TYPE_CHECKING:
    import xarray as xr

SOURCE = Option("source", "Group prefix [default: first of those in the store].", str)
SITES = Option("site", "attn.qkv, mlp.fc2, … Repeatable.", "word", (), many=True)
OPTIONS = (*ANALYSES["bits"].options, SOURCE, SITES)

_POINTS = 25
"""Budgets of the curve."""
_SLACK = 1e-6


@dataclass(frozen=True)
class _Units:
    """What gets a width of its own: layers of all sites, or their steps.

    Parameters
    ----------
    costs
        Path -> (..., choice), as `joint_bits` has them.
    widths
        Ascending.
    """

    costs: Mapping[str, xr.DataArray]
    widths: tuple[int, ...]

    @property
    def rows(self) -> Floats:
        """All units of all groups, ``(unit, choice)``."""
        parts = [cost.values.reshape(-1, len(self.widths)) for cost in self.costs.values()]
        return np.concatenate(parts)

    def apart(self, values: NDArray[Any]) -> dict[str, xr.DataArray]:
        """A value of each unit as the groups have them, by path."""
        ends = np.cumsum([cost[..., 0].size for cost in self.costs.values()])[:-1]
        parts = zip(self.costs.items(), np.split(values, ends), strict=True)
        return {
            path: cost.isel(choice=0, drop=True).copy(data=part.reshape(cost.shape[:-1]))
            for (path, cost), part in parts
        }


def width_plan(
    service: Service,
    *,
    store: str,
    average: float | None = None,
    choices: Sequence[int],
    per: str,
    weight: str,
    symmetric: bool,
    source: str | None = None,
    site: Sequence[str] = (),
) -> dict[str, Any]:
    """Best widths under a budget, as `analysis.joint_bits` allocates them, beside uniform ones.

    Returns
    -------
    ``average`` asked and ``bits`` spent, means over units; ``choices``; ``error``, the mean of
    expected errors, and ``uniform``, that of each width for all; ``curve``: ``average`` and
    ``error`` of the best allocations; ``sites`` with the same by site; ``rows`` with ``bits``,
    ``error`` and ``choice_error`` of each layer, lists over ``steps`` where each has its own.

    Raises
    ------
    MissingError
        There are no histograms, or no such source or site.
    TaqError
        A budget below the smallest width.
    """
    from taqstore.analysis.shared.widths import halfway

    widths = tuple(sorted(set(choices)))
    units = _units(service, store, widths, per, weight, symmetric, source, tuple(site))
    asked = halfway(widths) if average is None else average
    chosen = _allocated(units.rows, widths, asked)
    sites = {
        path: _site(path, units.costs[path], bits) for path, bits in units.apart(chosen).items()
    }
    told = {"average": average, "choices": widths, "per": per, "weight": weight}
    curve = partial(_curve, units)
    key = ("plan curve", widths, per, weight, symmetric, source, tuple(site))
    return {
        "average": asked,
        "choices": list(widths),
        "per": per,
        "weight": weight,
        **_steps(units, per),
        **_summary(units.rows, widths, chosen),
        "curve": service.kept(store, key, curve),
        "sites": [{key: one[key] for key in one if key != "rows"} for one in sites.values()],
        "rows": [row for one in sites.values() for row in one["rows"]],
        **analysis_shown(
            "bits",
            service.address(store),
            chosen={"source": source, "site": tuple(site)},
            options={**_given(told), "symmetric": symmetric},
        ),
    }


def _given(told: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is as it is by default: the line that is shown says what was chosen."""
    rows = {row.name: row.default for row in ANALYSES["bits"].options}
    return {
        name: value for name, value in told.items() if value is not None and value != rows[name]
    }


def _units(
    service: Service,
    store: str,
    widths: tuple[int, ...],
    per: str,
    weight: str,
    symmetric: bool,
    source: str | None,
    sites: tuple[str, ...],
) -> _Units:
    import xarray as xr

    from taqstore.query.sites import choose_groups

    paths = choose_groups(service.store(store), source, sites=sites)
    costs = {}
    for path in paths:
        parts = [
            service.kept(
                store,
                ("plan", path, width, weight, symmetric),
                partial(_cost, service, store, path, width, weight, symmetric),
            )
            for width in widths
        ]
        cost = xr.concat(parts, "choice").transpose(..., "choice")
        costs[path] = cost.mean("step") if per == "layer" else cost
    return _Units(costs, widths)


def _cost(
    service: Service, store: str, path: str, width: int, weight: str, symmetric: bool
) -> xr.DataArray:
    """Least expected error at one width, (step, layer, choice): widths do not ask of each other."""
    from taqstore.analysis.bits import bits

    asked: dict[str, Any] = {"choices": (width,), "average": width, "weight": weight}
    found = bits(service.held(store, path), per="step", symmetric=symmetric, **asked)
    cost: xr.DataArray = found["choice_error"].compute()
    return cost


def _allocated(rows: Floats, widths: Sequence[int], average: float) -> NDArray[np.int64]:
    from taqstore.quantization.allocation import allocate

    return allocate(rows, widths, average=average)


def _summary(rows: Floats, widths: Sequence[int], chosen: NDArray[np.int64]) -> dict[str, Any]:
    """Bits and errors of units, means over those that are known."""
    known = chosen > 0
    if not known.any():
        return {"units": 0, "bits": None, "error": None, "uniform": [None] * len(widths)}
    place = np.searchsorted(widths, chosen[known])
    picked = rows[known][np.arange(len(place)), place]
    return {
        "units": int(known.sum()),
        "bits": float(chosen[known].mean()),
        "error": float(picked.mean()),
        "uniform": rows[known].mean(axis=0).tolist(),
        "counts": [int((chosen == width).sum()) for width in widths],
    }


def _curve(units: _Units) -> dict[str, Any]:
    """Mean error of the best allocation at evenly spaced budgets, all found at once."""
    from taqstore.quantization.allocation import allocate_sized

    rows, widths = units.rows, np.array(units.widths)
    rows = rows[~np.isnan(rows).any(axis=1)]
    grid = np.unique(np.append(np.linspace(widths[0], widths[-1], _POINTS), widths))
    if not len(rows):
        return {"average": grid.tolist(), "error": [None] * len(grid)}
    spent = [floor(budget * len(rows) + _SLACK) for budget in grid]
    picked = allocate_sized(rows, np.broadcast_to(widths, rows.shape), budgets=spent)
    errors = np.take_along_axis(rows, picked.T, axis=1).mean(axis=0)
    return {"average": grid.tolist(), "error": errors.tolist()}


def _steps(units: _Units, per: str) -> dict[str, Any]:
    if per == "layer":
        return {}
    first = next(iter(units.costs.values()))
    sigma = first["sigma"].values.tolist() if "sigma" in first.coords else None
    return {"steps": first["step"].values.tolist(), "sigma": sigma}


def _site(path: str, cost: xr.DataArray, bits: xr.DataArray) -> dict[str, Any]:
    from taqstore.names import site_of

    widths = cost["choice"].values.tolist()
    summary = _summary(cost.values.reshape(-1, len(widths)), widths, bits.values.ravel())
    site = site_of(path)
    return {"site": site, **summary, "rows": list(_rows(site, cost, bits))}


def _rows(site: str, cost: xr.DataArray, bits: xr.DataArray) -> list[dict[str, Any]]:
    """A row for each linear's input; of each, widths and errors over steps where there are any."""
    picked = cost.where(cost["choice"] == bits).sum("choice", min_count=1)
    timed = ["step"] if "step" in cost.dims else []
    names = [str(dim) for dim in bits.dims if dim != "step"]
    flat = {
        "bits": bits.transpose(*names, *timed),
        "error": picked.transpose(*names, *timed),
        "choice_error": cost.transpose(*names, *timed, "choice"),
    }
    rows = []
    for place in np.ndindex(*(bits.sizes[name] for name in names)):
        label = [str(bits[name].values[i]) for name, i in zip(names, place, strict=True)]
        values = {key: array.values[place].tolist() for key, array in flat.items()}
        rows.append({"site": site, "layer": " ".join(label), **values})
    return rows
