"""How much a rule that depends on the order of batches moves when the order changes."""

from __future__ import annotations

from itertools import permutations as every_order
from math import factorial

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, channel_bounds, finish, over, quotient, require
from taqstore.analysis.table import of_row
from taqstore.asked import whole_number
from taqstore.statistics.moving_average import SHIFT_MOMENTUM, ema_weights

_NAME = "order"
MAX_ORDERS = 10_000


@of_row(_NAME)
def order(
    dataset: xr.Dataset,
    *,
    momentum: float = SHIFT_MOMENTUM,
    orders: int = 20,
    seed: int = 0,
) -> xr.Dataset:
    """Spread of the EMA shift and of the EMA clip bound over orders of the batches.

    An EMA started at its first batch is a weighted sum over batches (`replay.ema_weights`), so an
    order is a row of weights and all orders are one matrix product, in float64. The stored order
    comes first, then seeded random ones; where there are no more orders than asked for, all are
    taken, and the result does not depend on the stored order.

    Parameters
    ----------
    dataset
        Observations: a pooled source has lost its batches.
    momentum
        Weight of the past, 0 to 1: 0.95 is the source's shift, 0.99 torch's moving average.
    orders
        How many orders to try.
    seed
        Of the random orders.

    Returns
    -------
    Dataset
        (step, layer, channel): `shift_spread`, largest minus smallest EMA of
        ``(min + max) / 2``, and `shift_spread_share` of the channel's range over all batches (0
        where the range is 0). (step, layer): their largest and mean share over channels,
        `shift_spread_share_max` and `shift_spread_share_mean`; `alpha`, the EMA clip bound
        ``max(|EMA of tensor min|, |EMA of tensor max|)`` in the stored order, `alpha_low`,
        `alpha_high` over orders and `alpha_spread_share`, their difference over `alpha`.

    Raises
    ------
    MissingError
        There are no extrema per batch.
    MisuseError
        An option out of its range.
    """
    require(dataset, ("min", "max", "batch"), analysis=_NAME)
    weights = order_weights(dataset.sizes["batch"], momentum=momentum, orders=orders, seed=seed)
    spread = over(
        _shift_spread,
        dataset["min"],
        dataset["max"],
        core=(("batch",), ("batch",)),
        weights=weights,
    )
    bounds = channel_bounds(dataset, analysis=_NAME)
    width = bounds.upper - bounds.lower
    share = quotient(spread, width, empty=0.0)
    result = xr.Dataset(
        {
            "shift_spread": spread,
            "shift_spread_share": share,
            "shift_spread_share_max": share.max("channel", skipna=False),
            "shift_spread_share_mean": share.mean("channel", skipna=False),
            **_clip_bounds(dataset, weights),
        }
    )
    tried = {"momentum": momentum, "orders": len(weights), "seed": seed}
    return finish(result, dataset, _NAME, **tried)


def order_weights(batches: int, *, momentum: float, orders: int, seed: int) -> Array:
    """Weights ``(order, batch)`` of every batch in each order; row 0 is the stored order."""
    whole_number(orders, "orders", least=1, most=MAX_ORDERS)
    weights = ema_weights(batches, momentum)
    # MAX_ORDERS < 8!, beyond which the factorial need not be known.
    if factorial(min(batches, 8)) <= orders:
        chosen = np.array(list(every_order(range(batches))))
    else:
        rng = np.random.default_rng(seed)
        shuffled = [rng.permutation(batches) for _ in range(orders - 1)]
        chosen = np.array([np.arange(batches), *shuffled])
    placed = np.empty(chosen.shape)
    np.put_along_axis(placed, chosen, np.broadcast_to(weights, chosen.shape), axis=1)
    return placed


def _shift_spread(minimum: Array, maximum: Array, *, weights: Array) -> Array:
    low, high = _extent((minimum.astype(np.float64) + maximum) / 2, weights)
    return high - low


def _extent(values: Array, weights: Array) -> tuple[Array, Array]:
    """Smallest and largest weighted sum of rows ``(..., batch)`` over all orders."""
    low = high = weighted(values, weights[0])
    for one in weights[1:]:
        moved = weighted(values, one)
        low, high = np.minimum(low, moved), np.maximum(high, moved)
    return low, high


def weighted(values: Array, weights: Array) -> Array:
    """Sums of rows ``(..., batch)``, batch by batch: rounded alike whatever rows come together."""
    total: Array = values[..., 0] * weights[0]
    for batch in range(1, len(weights)):
        total += values[..., batch] * weights[batch]
    return total


def _clip_bounds(dataset: xr.Dataset, weights: Array) -> dict[str, xr.DataArray]:
    ends = [
        dataset[rollup] if rollup in dataset.data_vars else reduced
        for rollup, reduced in (
            ("tensor_min", dataset["min"].min("channel", skipna=False)),
            ("tensor_max", dataset["max"].max("channel", skipna=False)),
        )
    ]
    stored, low, high = over(
        _absmax_extent,
        *ends,
        core=(("batch",), ("batch",)),
        out=((), (), ()),
        dtypes=(np.float64,) * 3,
        weights=weights,
    )
    share = quotient(high - low, stored, empty=0.0)
    return {"alpha": stored, "alpha_low": low, "alpha_high": high, "alpha_spread_share": share}


def _absmax_extent(minimum: Array, maximum: Array, *, weights: Array) -> tuple[Array, ...]:
    lower, upper = (
        np.stack([weighted(end.astype(np.float64), one) for one in weights], axis=-1)
        for end in (minimum, maximum)
    )
    alpha = np.maximum(abs(lower), abs(upper))
    return alpha[..., 0], alpha.min(axis=-1), alpha.max(axis=-1)
