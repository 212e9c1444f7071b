"""Densities of one layer's values, step by step: what histograms and ridgelines show."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.merged import bounded_bins
from taqstore.errors import MissingError, problem

DISPLAY_BINS = 300
"""Bins narrower than the shown axis divided by this are merged with their neighbours."""

_CORE = (0.005, 0.995)
_WIDE = 10.0


def histogram_data(view: xr.Dataset) -> xr.Dataset:
    """Histogram of the view's only layer: `count`, `density` (step, bin), bounds `left`, `right`.

    density = count / (counted values * bin width), so that bins of any width compare. Bins shared
    by all steps and too narrow to be seen (float-bit-prefix bins near zero) are merged with their
    neighbours on the same side of zero. `linear_width` in the attributes is 0 for a linear axis;
    otherwise the axis is asinh, linear within that distance of zero.

    Raises
    ------
    MissingError
        The layer's histogram is empty at every step.
    """
    data = bounded_bins(view, analysis="histogram").isel(layer=0).transpose("step", "bin").compute()
    name = str(view["layer"].values[0])
    left, right, counts = data["left"].values, data["right"].values, data["counts"].values
    if not counts.any():
        raise MissingError(problem("no values were counted in its histogram", where=name))
    linear_width = 0.0
    if left.ndim == 1:
        linear_width = _linear_width(left, right, counts.sum(axis=0))
        left, right, counts = _merge_narrow(left, right, counts, linear_width)
    total = counts.sum(axis=1, keepdims=True).astype(np.float64)
    width = right - left
    share = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    bound_dims = ("step", "bin")[-left.ndim :]
    return xr.Dataset(
        {
            "count": (("step", "bin"), counts),
            "density": (("step", "bin"), share / width),
            "left": (bound_dims, left),
            "right": (bound_dims, right),
        },
        coords={"step": data["step"], **_step_coords(data)},
        attrs={"linear_width": linear_width},
    )


def _step_coords(data: xr.Dataset) -> dict[str, xr.DataArray]:
    return {str(k): v for k, v in data.coords.items() if v.dims == ("step",) and k != "step"}


def _linear_width(left: np.ndarray, right: np.ndarray, total: np.ndarray) -> float:
    """Distance from zero within which an asinh axis is linear; 0 where a linear axis serves."""
    used = np.flatnonzero(total)
    span = right[used[-1]] - left[used[0]]
    cumulated = np.cumsum(total) / total.sum()
    low, high = np.searchsorted(cumulated, _CORE)
    core = right[high] - left[low]
    return float(core / 4) if span > _WIDE * core else 0.0


def _merge_narrow(
    left: np.ndarray, right: np.ndarray, counts: np.ndarray, linear_width: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    used = np.flatnonzero(counts.sum(axis=0))
    shown = slice(used[0], used[-1] + 1)
    left, right, counts = left[shown], right[shown], counts[:, shown]

    def place(x: np.ndarray) -> np.ndarray:
        return np.arcsinh(x / linear_width) if linear_width else x

    cell = (place(right[-1:]) - place(left[:1])) / DISPLAY_BINS
    # Cells start at zero, so bins on its two sides never share one.
    starts = np.flatnonzero(np.diff(np.floor(place(left) / cell), prepend=-np.inf))
    ends = np.append(starts[1:], len(left)) - 1
    return left[starts], right[ends], np.add.reduceat(counts, starts, axis=1)
