"""The allocation in the answer of `analyze frontier`, checked."""

from __future__ import annotations

import xarray as xr

from taqstore.errors import MisuseError, problem
from taqstore.kinds.formats.weight_formats import FLOAT
from taqstore.kinds.sensitivity import quantizes_inputs
from taqstore.names import LayerName, parse_layer


def allocated(result: xr.Dataset, *, inputs: bool = False) -> dict[LayerName, str]:
    """Format of every linear, in the order of a store.

    Parameters
    ----------
    inputs
        Whether formats of inputs are wanted, else of weights.

    Raises
    ------
    MisuseError
        No allocation was asked for, or one of the other kind.
    """
    if "allocated" not in result:
        what = "an allocation is of one budget"
        raise MisuseError(problem(what, remedy="give it with --average BITS"))
    found = {
        parse_layer(str(name)): str(format)
        for name, format in zip(result["target"].values, result["allocated"].values, strict=True)
    }
    other = [f for f in found.values() if f != FLOAT and quantizes_inputs(f) != inputs]
    if other:
        kind, wanted = ("weights", "a4-static") if inputs else ("inputs", "mlx-w4-g64")
        what = f"{other[0]} is a format of {kind}, and this text is of the others"
        raise MisuseError(problem(what, remedy=f"choose formats like --format {wanted}"))
    return dict(sorted(found.items(), key=lambda pair: (pair[0].sort_key, pair[0].full)))
