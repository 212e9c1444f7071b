"""How far every variant of the store keeps to the trajectories of the model as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from taqstore.plot.parts.panels import Page
from taqstore.plot.parts.trajectories import trajectory_figure
from taqstore.query.variants import compared_variants
from taqstore.trajectory.measures import MIN_COSINE

if TYPE_CHECKING:
    import pandas as pd

PANELS = {"": "latent", "output_": "guided output"}


def gate_pages(
    groups: Mapping[str, xr.Dataset],
    *,
    min_cosine: float = MIN_COSINE,
    answers: Mapping[str, xr.Dataset] | None = None,
) -> Iterator[Page]:
    """One page: cosine of latents and of guided outputs by step, a line for every variant.

    Parameters
    ----------
    min_cosine
        The bound; steps at which a seed first falls below it are marked.
    answers
        What `query.variants.compared_variants` says, where it is known.
    """
    found = answers or compared_variants(groups, min_cosine=min_cosine)
    figure = trajectory_figure(found, panels=PANELS, min_cosine=min_cosine)
    yield Page("gate", figure, gate_table(found))


def gate_table(variants: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Rows by variant and step: mean cosines with intervals, the worst image, bifurcated there."""
    import pandas as pd

    return pd.concat([_rows(name, data) for name, data in variants.items()], ignore_index=True)


def _rows(name: str, data: xr.Dataset) -> pd.DataFrame:
    import pandas as pd

    order = np.arange(data.sizes["step"])
    return pd.DataFrame(
        {
            "variant": name,
            "step": data["step"].values,
            **{c: data[c].values for c in ("sigma", "timestep") if c in data.coords},
            "seeds": data.sizes["image"],
            "cosine": data["mean"].values,
            "lower": data["lower"].values,
            "upper": data["upper"].values,
            "least": data["cosine"].min("image").values,
            "output_cosine": data["output_mean"].values,
            "output_lower": data["output_lower"].values,
            "output_upper": data["output_upper"].values,
            "bifurcated": (data["first_below"].values[:, None] == order).sum(axis=0),
        }
    )
