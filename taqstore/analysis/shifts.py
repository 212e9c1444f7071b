"""Channel shifts: momentum averages of the midpoint, and the ranges they leave."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, Bounds, channel_bounds, finish, over, require
from taqstore.analysis.table import of_row
from taqstore.errors import TaqError, problem
from taqstore.statistics.moving_average import SHIFT_MOMENTUM, ema_midpoint
from taqstore.store.attributes import attribute_of

_NAME = "shifts"


@of_row(_NAME)
def shifts(dataset: xr.Dataset, *, momentum: float = SHIFT_MOMENTUM) -> xr.Dataset:
    """Shift of every channel, and the extrema after subtracting it.

    Observations: EMA of ``(min + max) / 2`` over batches in their order, replayed in float32, step
    by step on its own. `pooled/timestep_stats/mlp.fc2`: the stored shift, which was made with
    momentum 0.95.

    Parameters
    ----------
    dataset
        Observations, or `pooled/timestep_stats/mlp.fc2`.
    momentum
        Weight of the past, 0 to 1.

    Returns
    -------
    Dataset over (step, layer[, channel])
        `shift`, `shifted_min`, `shifted_max` per channel; `shift_absmax`, `alpha` (absmax before)
        and `shifted_alpha` (after).

    Raises
    ------
    MissingError
        A needed variable is not there.
    TaqError
        A pooled source was reduced with another momentum.
    MisuseError
        The momentum is out of its range.
    """
    shift = midpoint_shift(dataset, momentum=momentum)
    bounds = channel_bounds(dataset, analysis=_NAME)
    moved = Bounds(bounds.lower - shift, bounds.upper - shift)
    result = xr.Dataset(
        {
            "shift": shift,
            "shifted_min": moved.lower,
            "shifted_max": moved.upper,
            "shift_absmax": abs(shift).max("channel", skipna=False),
            "alpha": bounds.absmax.max("channel", skipna=False),
            "shifted_alpha": moved.absmax.max("channel", skipna=False),
        }
    )
    return finish(result, dataset, _NAME, momentum=momentum)


def midpoint_shift(dataset: xr.Dataset, *, momentum: float = SHIFT_MOMENTUM) -> xr.DataArray:
    """The shift alone, (step, layer, channel) float64; see `shifts`."""
    if "batch" not in dataset.dims:
        return _stored_shift(dataset, momentum)
    require(dataset, ("min", "max"), analysis=_NAME)
    shift: xr.DataArray = over(
        _replay,
        dataset["min"],
        dataset["max"],
        core=(("batch",), ("batch",)),
        momentum=momentum,
    )
    return shift


def _stored_shift(dataset: xr.Dataset, momentum: float) -> xr.DataArray:
    require(dataset, ("shift",), ("min", "max", "batch"), analysis=_NAME)
    used = float(attribute_of(dataset, "source_document", {}).get("shift_momentum", SHIFT_MOMENTUM))
    if momentum != used:
        raise TaqError(
            problem(
                f"the stored shift was reduced with momentum {used}, not {momentum}",
                remedy="use activations/<site> for another one",
            )
        )
    return dataset["shift"].astype(np.float64)


def _replay(minimum: Array, maximum: Array, *, momentum: float) -> Array:
    first = (np.moveaxis(extremum, -1, 0) for extremum in (minimum, maximum))
    return ema_midpoint(*first, momentum=momentum).astype(np.float64)
