"""What average bits buy: the least predicted error at every budget, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from taqstore.errors import MissingError
from taqstore.kinds.trajectories import AVERAGE_BITS
from taqstore.names import SENSITIVITY
from taqstore.plot.parts.panels import Page
from taqstore.query.budgets import STATIC, frontiers
from taqstore.query.variants import compared_variants

if TYPE_CHECKING:
    import pandas as pd

_LINES = {"weight_error": ("#E69F00", ":"), "moment_error": ("#CC79A7", "-.")}


def frontier_pages(
    groups: Mapping[str, xr.Dataset],
    *,
    average: float | None = None,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> Iterator[Page]:
    """One page: error of the final latent against average bits.

    Parameters
    ----------
    average
        Budget of the allocation that is marked; None: the bits of the format in the middle.
    answers
        What `query.budgets.frontiers` says, where it is known.
    """
    found = answers or frontiers(groups, average=average)
    measured = measured_points(groups)
    yield Page("frontier", _figure(found, measured), frontier_table(found, measured))


def measured_points(groups: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Variants that ran: average bits, and the root mean square of their latents' relative error.

    Of those whose inputs stay as they are; bits are what their trajectories say of all weights.
    """
    import pandas as pd

    rows = []
    try:
        variants = compared_variants(groups)
    except MissingError:
        variants = {}
    for name, data in variants.items():
        inputs = name.partition(" ")[0].partition("/")[2]
        known = data.attrs.get(AVERAGE_BITS)
        if known is not None and inputs in ("", "a16"):
            error = float(np.sqrt((data["relative_error"].isel(step=-1) ** 2).mean()))
            rows.append((name, float(known), error))
    return pd.DataFrame(rows, columns=["what", "average_bits", "error"])


def frontier_table(found: Mapping[str, xr.Dataset], measured: pd.DataFrame) -> pd.DataFrame:
    """Rows of all curves and points: `what`, `average_bits`, `error`, `first_order_error`."""
    import pandas as pd

    parts = []
    for basis, data in found.items():
        columns = ("average_bits", "predicted_error", "first_order_error")
        bits, error, first_order = (data[name].values for name in columns)
        what = "frontier" if basis == SENSITIVITY else f"by static {basis}"
        parts.append(_rows(what, bits, error, first_order, data["budget"].values))
    data = found[SENSITIVITY]
    columns = ("uniform_bits", "uniform_error", "uniform_first_order")
    parts.append(_rows(data["format"].values, *(data[name].values for name in columns)))
    points = measured.assign(what=[f"measured: {name}" for name in measured["what"]])
    parts += [points] if len(points) else []
    return pd.concat(parts, ignore_index=True)


def draw_frontier(found: Mapping[str, xr.Dataset], measured: pd.DataFrame, ax: Axes) -> Axes:
    """Curves of `query.budgets.frontiers`, uniform formats, the chosen point, and what ran."""
    data = found[SENSITIVITY]
    bits = data["average_bits"]
    ax.plot(bits, data["predicted_error"], "-", color="#0072B2", label="predicted: independent")
    ax.plot(bits, data["first_order_error"], "--", color="#56B4E9", label="predicted: first order")
    for basis in STATIC:
        if basis in found:
            color, line = _LINES[basis]
            other = found[basis]
            x, y = other["average_bits"], other["predicted_error"]
            ax.plot(x, y, line, color=color, label=f"allocated by static {basis}")
    ax.plot(data["uniform_bits"], data["uniform_error"], "D", color="#000000", markersize=5,
            label="one format for all")  # fmt: skip
    for name, x, y in zip(*(data[n].values for n in ("format", "uniform_bits", "uniform_error")),
                          strict=True):  # fmt: skip
        ax.annotate(str(name), (x, y), (5, 4), textcoords="offset points", fontsize="x-small")
    average = data.attrs.get("average")
    if average is not None:
        chosen = data.sel(budget=float(average))
        ax.plot(chosen["average_bits"], chosen["predicted_error"], "*", color="#D55E00",
                markersize=13, label=f"chosen: {average:g} bits on average")  # fmt: skip
    if len(measured):
        ax.plot(measured["average_bits"], measured["error"], "x", color="#009E73", markersize=8,
                markeredgewidth=2, label="measured by the gate")  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("average bits of a weight, scales and biases counted")
    ax.set_ylabel("relative error of the final latent")
    ax.grid(color="0.92", linewidth=0.5)
    return ax


def _rows(
    what: str | np.ndarray,
    bits: np.ndarray,
    error: np.ndarray,
    first_order: np.ndarray,
    budget: Sequence[float] | np.ndarray | float = np.nan,
) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "what": what,
            "budget": budget,
            "average_bits": bits,
            "error": error,
            "first_order_error": first_order,
        }
    )


def _figure(found: Mapping[str, xr.Dataset], measured: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    draw_frontier(found, measured, figure.subplots())
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.suptitle("what average bits buy, each linear by its own format")
    return figure
