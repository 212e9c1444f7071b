"""What a store's sensitivities advise: frontiers by what is made least, steps to protect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.frontier import frontier
from taqstore.analysis.policy import policy
from taqstore.analysis.shared.widths import halfway
from taqstore.errors import MissingError, problem
from taqstore.kinds.sensitivity import quantizes_inputs, sensitivities
from taqstore.names import SENSITIVITY

STATIC = ("weight_error", "moment_error")
"""Static scores whose allocations stand beside, priced by the sensitivities."""


def frontiers(
    groups: Mapping[str, xr.Dataset], *, average: float | None = None
) -> dict[str, xr.Dataset]:
    """`analysis.frontier` by what was made least: `SENSITIVITY`, and the `STATIC` there are.

    Parameters
    ----------
    average
        Budget of the allocation; None: halfway from the bits of the format in the middle to those
        of the next smaller one, which no one format meets.

    Raises
    ------
    MissingError
        The store has no sensitivities of linears.
    MisuseError
        The budget is below what its formats allow.
    """
    formats = _of_all_linears(groups)
    if average is None:
        average = halfway(frontier(groups, formats=formats)["frontier"]["uniform_bits"].values)
    asked: dict[str, Any] = {"formats": formats, "average": average}
    found = {SENSITIVITY: frontier(groups, **asked)["frontier"]}
    for score in STATIC:
        try:
            static = frontier(groups, **asked, score=score)["frontier"]
        except MissingError:
            continue
        if "predicted_error" in static and np.isfinite(static["predicted_error"]).any():
            found[score] = static
    return found


def _of_all_linears(groups: Mapping[str, xr.Dataset]) -> list[str]:
    """Formats of weights, else of inputs, that as many linears were tried in as in any."""
    sizes = {
        name: data.sizes["target"] for (_, name), data in sensitivities(groups, "linear").items()
    }
    sides = [[name for name in sizes if quantizes_inputs(name) == side] for side in (False, True)]
    chosen = sides[0] or sides[1]
    most = max((sizes[name] for name in chosen), default=0)
    return [name for name in chosen if sizes[name] == most]


def policies(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """`analysis.policy` for every format of inputs that was quantized at one step at a time.

    Raises
    ------
    MissingError
        None was.
    """
    formats = [name for _, name in sensitivities(groups, "step")]
    if not formats:
        what, remedy = "no step was quantized alone", "taqstore sensitivity STORE --unit step"
        raise MissingError(problem(what, remedy=remedy))
    return {name: policy(groups, format=name)["policy"] for name in formats}
