"""Ranges for every step, or for groups of neighbouring steps that begin at given ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr

from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.analysis.shared.inputs import Bounds
from taqstore.errors import MissingError, problem
from taqstore.quantization.search import Scheme

Cuts: TypeAlias = Sequence[int] | Literal["static"] | None
"""Labels of the steps that begin a new group, or one group (static), or every step its own."""


def cuts_text(cuts: Cuts) -> str | None:
    """Cuts as a result notes them."""
    return cuts if cuts is None or isinstance(cuts, str) else ",".join(map(str, cuts))


def per_step(
    dataset: xr.Dataset, cuts: Cuts, rule: Clip, scheme: Scheme, *, analysis: str
) -> Bounds:
    """Range of every step, or of the group it belongs to; see `clip.clip_range`.

    Raises
    ------
    MissingError
        The source lacks what the rule needs, or a cut is no step after the first.
    """

    def chosen(part: xr.Dataset, static: bool) -> xr.Dataset:
        found = clip_range(part, rule, scheme, static=static, analysis=analysis)
        return xr.Dataset({"lower": found.lower, "upper": found.upper})

    ranges = by_steps(dataset, cuts, chosen)
    if cuts is not None:
        groups = step_groups(dataset, () if cuts == "static" else cuts)
        member = np.repeat(np.arange(len(groups)), [g.stop - g.start for g in groups])
        ranges = ranges.isel(step_group=xr.DataArray(member, dims="step"))
        ranges = ranges.drop_vars(("first_step", "last_step")).assign_coords(step=dataset["step"])
    return Bounds(ranges["lower"], ranges["upper"])


def by_steps(
    dataset: xr.Dataset,
    cuts: Cuts,
    function: Callable[[xr.Dataset, bool], xr.Dataset],
) -> xr.Dataset:
    """Apply a function to every step (`cuts` None) or to groups of steps between `cuts`.

    Raises
    ------
    MissingError
        A cut is not the label of a step after the first.
    """
    if cuts is None:
        return function(dataset, False)
    groups = step_groups(dataset, () if cuts == "static" else cuts)
    labels = dataset["step"].values
    parts = [function(dataset.isel(step=group), True) for group in groups]
    joined = xr.concat(parts, dim="step_group", coords="minimal", compat="override")
    return joined.assign_coords(
        first_step=("step_group", [labels[group][0] for group in groups]),
        last_step=("step_group", [labels[group][-1] for group in groups]),
    )


def step_groups(dataset: xr.Dataset, cuts: Sequence[int | str]) -> list[slice]:
    """Slices over `step` that begin at the first step and at every label in `cuts`.

    Raises
    ------
    MissingError
        A cut is not the label of a step after the first.
    """
    if "step" not in dataset.coords:
        raise MissingError(problem("groups of steps need the coordinate step"))
    labels = [int(label) for label in dataset["step"].values]
    unknown = [cut for cut in cuts if cut not in labels[1:]]
    if unknown:
        what = f"no group of steps can begin at {unknown[0]}"
        raise MissingError(problem(what, found=", ".join(map(str, labels[1:]))))
    starts = [0, *sorted({labels.index(int(cut)) for cut in cuts}), len(labels)]
    return [slice(start, stop) for start, stop in pairwise(starts)]
