"""Cosine of latents by step: how far variants go from the model as it is, and when."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from taqstore.trajectory.bootstrap import bootstrap
from taqstore.trajectory.measures import MIN_COSINE

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")


def trajectory_figure(cosines: Mapping[str, np.ndarray], *, bound: float = MIN_COSINE) -> Figure:
    """One panel: `draw_trajectories` with its legend beside it."""
    rows = max(len(cosines), 1)
    figure = Figure(figsize=(8.0, max(3.4, 0.9 + 0.2 * rows)), layout="constrained")
    ax = draw_trajectories(cosines, figure.subplots(), bound=bound)
    ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    images = max((len(one) for one in cosines.values()), default=0)
    figure.suptitle(f"trajectories beside the model as it is, {images} images")
    return figure


def draw_trajectories(
    cosines: Mapping[str, np.ndarray], ax: Axes, *, bound: float = MIN_COSINE
) -> Axes:
    """A line for each variant: mean over images of 1 - cosine, its interval, and the worst image.

    Drawn as a distance on a logarithmic axis, as all that is worth seeing is close to a cosine
    of 1; ticks say the cosine.

    Parameters
    ----------
    cosines
        By name of the variant: ``(image, step)`` of latents, from step 1 to the final.
    bound
        Below it an image is bifurcated; drawn across.
    """
    for place, (name, values) in enumerate(cosines.items()):
        steps = np.arange(1, values.shape[1] + 1)
        far = np.where(values < 1, 1 - values, np.nan)
        color = _COLORS[place % len(_COLORS)]
        dash = _DASHES[place // len(_COLORS) % len(_DASHES)]
        mean, lower, upper = bootstrap(values, draws=1000)
        ax.plot(steps, _away(mean), color=color, linestyle=dash, label=name)
        ax.fill_between(steps, _away(upper), _away(lower), color=color, alpha=0.2, linewidth=0)
        if len(values) > 1:
            worst = np.where(np.isnan(far).all(axis=0), np.nan, np.fmax.reduce(far, axis=0))
            ax.plot(steps, worst, color=color, linestyle=dash, linewidth=0.7, alpha=0.7)
    ax.axhline(1 - bound, color="0.3", linewidth=0.8, linestyle=(0, (6, 3)))
    ax.text(0.01, 1 - bound, f"{bound:g}", va="bottom", fontsize="small", color="0.3",
            transform=ax.get_yaxis_transform())  # fmt: skip
    ax.set_yscale("log")
    ax.invert_yaxis()
    ax.yaxis.set_major_formatter(lambda away, _: f"{1 - away:.10g}")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    ax.grid(color="0.9", linewidth=0.5)
    ax.set_axisbelow(True)
    ax.set_xlabel("step of the latent")
    ax.set_ylabel("cosine (mean, interval; thin: worst image)")
    return ax


def _away(cosine: np.ndarray) -> np.ndarray:
    return np.where(cosine < 1, 1 - cosine, np.nan)
