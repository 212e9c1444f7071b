"""How far a moving average moves when its batches come in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from taqstore.analysis import order
from taqstore.analysis.order import order_weights
from taqstore.analysis.shared.inputs import Array, over
from taqstore.errors import MissingError, problem
from taqstore.plot.parts import drawing as figures
from taqstore.plot.parts.grid import each_site, legend_below, panel_grid, site_grid, site_table
from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.views import linear_view
from taqstore.statistics.moving_average import SHIFT_MOMENTUM

ORDERS = 20
LABELS = {
    "alpha_spread": "spread of the EMA clip bound\n(% of the bound in stored order)",
    "shift_spread": "spread of the EMA shift, worst channel\n(% of the channel's range)",
}


def order_pages(
    groups: Mapping[str, xr.Dataset], *, momentum: float = SHIFT_MOMENTUM, orders: int = ORDERS
) -> Iterator[Page]:
    """Three pages: a band per layer at its worst step; spreads of bound and shift by sigma.

    Raises
    ------
    MissingError
        A site has no extrema per batch; once the others are drawn.
    """
    analyse = partial(order_data, momentum=momentum, orders=orders)
    sites, missing = each_site(groups, lambda group, site: analyse(group, site=site))
    tried = " and ".join(dict.fromkeys(_tried(data) for data in sites.values()))
    note = f"momentum {momentum:g}, {tried}"
    worst = {site: worst_steps(data) for site, data in sites.items()}
    figure, axes = panel_grid(worst, draw_order_band, height=3.0)
    legend_below(figure, axes)
    figure.suptitle(f"EMA clip bound of each layer at the step where it moves most\n({note})")
    yield Page("order_band", figure, site_table(worst))
    for name, label in LABELS.items():
        some = {site: data[[name]] for site, data in sites.items()}
        values = [data[name].values.ravel() for data in some.values()]
        style = figures.heatmap_style(np.concatenate(values))
        draw = partial(figures.draw_heatmap, variable=name, style=style)
        figure = site_grid(some, draw, style, label)
        figure.suptitle(f"dependence on the order of batches\n({note})")
        yield Page(f"order_{name}", figure, site_table(some))
    if missing:
        raise missing[0]


def order_data(
    dataset: xr.Dataset,
    *,
    site: str = "",
    momentum: float = SHIFT_MOMENTUM,
    orders: int = ORDERS,
) -> xr.Dataset:
    """EMA clip bounds over orders of the batches, see `analysis.order`.

    Parameters
    ----------
    dataset
        One group of observations.
    momentum
        Weight of the past, 0 to 1.
    orders
        How many orders to try; all, where there are no more.

    Returns
    -------
    Dataset over (step, layer)
        `alpha` in stored order; `alpha_low`, `alpha_lower_quartile`, `alpha_upper_quartile`,
        `alpha_high` over orders; `alpha_spread`, highest minus lowest in % of `alpha`;
        `shift_spread`, of the EMA of ``(min + max) / 2``, in % of the channel's range, largest over
        channels. Attributes `momentum` and `orders` (those tried), `batches`.

    Raises
    ------
    MissingError
        There are no extrema per batch, or no values in them.
    TaqError
        Options that make no sense.
    """
    found = order(dataset, momentum=momentum, orders=orders)
    weights = order_weights(
        dataset.sizes["batch"], momentum=momentum, orders=orders, seed=found.attrs["seed"]
    )
    result = found[["alpha", "alpha_low", "alpha_high"]]
    result["alpha_spread"] = 100.0 * found["alpha_spread_share"]
    result["shift_spread"] = 100.0 * found["shift_spread_share_max"]
    result["alpha_lower_quartile"], result["alpha_upper_quartile"] = over(
        _quartiles,
        *_tensor_ends(dataset),
        core=(("batch",), ("batch",)),
        out=((), ()),
        dtypes=(np.float64,) * 2,
        weights=weights,
    )
    view = linear_view(result, [str(name) for name in result.data_vars], site=site).compute()
    if not np.isfinite(view["alpha"]).any():
        raise MissingError(problem("no batch holds any extrema", where="plot order"))
    return view.assign_attrs(found.attrs, batches=dataset.sizes["batch"])


def draw_order_band(data: xr.Dataset, ax: Axes) -> Axes:
    """Every layer at the step where its bound moves most: extremes thin, quartiles thick."""
    stored = data["alpha"].values
    ends = ("alpha_low", "alpha_lower_quartile", "alpha_upper_quartile", "alpha_high")
    low, lower, upper, high = (100.0 * (data[name].values / stored - 1.0) for name in ends)
    block = data["block"].values
    # Half a block at either side, even where there is a single one.
    ax.hlines(0.0, block.min() - 0.6, block.max() + 0.6, color="0.5", linewidth=0.8)
    ax.vlines(block, low, high, color=figures.PLAIN_COLOR, linewidth=1.5, label="all orders")
    ax.vlines(block, lower, upper, color="#0B3C6F", linewidth=5, label="middle half of the orders")
    if "label" in data.coords:
        ax.set_xticks(block, data["label"].values, rotation=40, ha="right", fontsize="small")
    else:
        ax.xaxis.set_major_locator(figures.whole_ticks())
        ax.set_xlabel("block index")
    ax.set_ylabel("EMA clip bound, deviation\nfrom that of the stored order (%)")
    return ax


def worst_steps(data: xr.Dataset) -> xr.Dataset:
    """Each known layer of `order_data` at the step of its largest `alpha_spread`, (layer)."""
    spread = data["alpha_spread"].transpose("layer", "step").values
    known = data.isel(layer=np.flatnonzero(np.isfinite(spread).any(axis=1)))
    worst = known["alpha_spread"].argmax("step")
    return known.isel(step=worst)


def _tensor_ends(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Extrema of every batch (batch, step, layer), from the rollups where there are any."""
    if {"tensor_min", "tensor_max"} <= set(dataset.data_vars):
        return dataset["tensor_min"], dataset["tensor_max"]
    lower, upper = dataset["min"], dataset["max"]
    return lower.min("channel", skipna=False), upper.max("channel", skipna=False)


def _quartiles(minimum: Array, maximum: Array, *, weights: Array) -> tuple[Array, Array]:
    """Quartiles over orders of ``max(|EMA of minimum|, |EMA of maximum|)``."""
    ends = (end.astype(np.float64) @ weights.T for end in (minimum, maximum))
    bounds = np.maximum(*(abs(end) for end in ends))
    lower, upper = np.quantile(bounds, (0.25, 0.75), axis=-1)
    return lower, upper


def _tried(data: xr.Dataset) -> str:
    return f"{data.attrs['orders']} orders of {data.attrs['batches']} batches"
