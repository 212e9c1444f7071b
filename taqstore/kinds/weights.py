"""Templates of what weight quantization leaves: `weights/<site>` and `reconstruction`.

A layer is an item of `weights/<site>`, a block one of `reconstruction`. Whoever quantizes a block
commits its layers first and the block last: a flagged block has all of its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.errors import LayoutError, problem
from taqstore.kinds.templates import Coords, layer_coords
from taqstore.layout.template import Array, Template
from taqstore.names import PROJECTIONS, RECONSTRUCTION, SITES, WEIGHTS

METHODS = ("adaround", "rtn", "clipped")
"""Roundings whose block errors are kept beside each other."""

INPUTS = ("float", "first", "learned")
"""How inputs of linears are quantized while roundings are compared: not at all, as the optimisation
began, as it ended."""


def weights_template(
    site: str,
    *,
    layers: Sequence[str],
    shape: tuple[int, int],
    groups: int = 1,
    sigma_lower: ArrayLike = (0.0,),
    shifted: bool = False,
    multiplied: bool = False,
    rounding_dtype: str = "float32",
    attrs: Mapping[str, Any] | None = None,
) -> Template:
    """Template of `weights/<site>`: a layer owns whole chunks, so that blocks commit one by one.

    At `attn.qkv` what belongs to one linear has `projection` after `layer`.

    Parameters
    ----------
    site
        Such as `mlp.fc2`.
    layers
        All layers the model has there, in store order, whichever are to be quantized.
    shape
        Outputs and inputs of each linear.
    groups
        Weight steps per output channel; each serves ``in / groups`` neighbouring inputs.
    sigma_lower
        (time_group,) as of `time_group_of`; one group: one activation step for all steps.
    shifted, multiplied
        Whether inputs are shifted, and whether channels have multipliers.
    rounding_dtype
        `float32` or `float16`.
    attrs
        Attributes of the group: `run`, with `bits`.

    Raises
    ------
    LayoutError
        `groups` does not divide the inputs, or `sigma_lower` does not descend to 0 at most.
    """
    lower = np.asarray(sigma_lower, np.float32)
    _check(site, shape, groups, lower)
    linear = ("layer", "projection") if site == SITES[0] else ("layer",)
    sizes = {"layer": len(layers), "projection": len(PROJECTIONS), "time_group": len(lower)}
    sizes |= {"out": shape[0], "group": groups, "in": shape[1]}
    coords: Coords = {
        **layer_coords(layers),
        "time_group": (("time_group",), np.arange(len(lower))),
        "sigma_lower": (("time_group",), lower),
    }
    if site == SITES[0]:
        coords["projection"] = (("projection",), np.array(PROJECTIONS, dtype=object))
    else:
        del sizes["projection"]
    return Template(
        path=f"{WEIGHTS}/{site}",
        kind=WEIGHTS,
        sizes=sizes,
        arrays=_arrays(linear, rounding_dtype, shifted=shifted, multiplied=multiplied),
        coords=coords,
        item_dims=("layer",),
        attrs=attrs or {},
    )


def _check(site: str, shape: tuple[int, int], groups: int, lower: NDArray[np.float32]) -> None:
    if groups < 1 or shape[1] % groups:
        what = f"{groups} groups do not divide {shape[1]} inputs"
        raise LayoutError(problem(what, where=site, remedy="choose another group size"))
    if lower.ndim != 1 or not lower.size or lower[-1] > 0 or (np.diff(lower) >= 0).any():
        found = ", ".join(map(str, lower.ravel()[:4]))
        raise LayoutError(problem("sigma_lower must descend to 0", where=site, found=found))


def _arrays(
    linear: tuple[str, ...], rounding: str, *, shifted: bool, multiplied: bool
) -> tuple[Array, ...]:
    timed = (*linear, "time_group")
    arrays = [
        Array("weight", (*linear, "out", "in"), "int8"),
        Array("step_size", (*linear, "out", "group"), "float32"),
        Array("rounding", (*linear, "out", "in"), rounding),
        Array("activation_step", timed, "float32"),
        Array("activation_zero_point", timed, "int32"),
        Array("activation_bits", ("layer", "time_group"), "int8"),
    ]
    if shifted:
        arrays.append(Array("activation_shift", ("layer", "time_group", "in"), "float32"))
    if multiplied:
        arrays.append(Array("activation_multiplier", ("layer", "in"), "float32"))
    return tuple(arrays)


def time_group_of(sigmas: ArrayLike, sigma_lower: ArrayLike) -> NDArray[np.int64]:
    """Time group of each noise level: the first whose `sigma_lower` is at most the level.

    Parameters
    ----------
    sigmas
        Any shape.
    sigma_lower
        (time_group,), descending; the last is 0 or less.

    >>> time_group_of([1.0, 0.5, 0.25, 0.0], [0.5, 0.0]).tolist()
    [0, 0, 1, 1]
    """
    level = np.asarray(sigmas, np.float32)[..., None]
    return np.asarray((level < np.asarray(sigma_lower, np.float32)).sum(axis=-1), np.int64)


def reconstruction_template(
    *,
    blocks: Sequence[str],
    streams: Sequence[str],
    iterations: ArrayLike,
    compared: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> Template:
    """Template of `reconstruction`: what quantizing each block cost, against simpler roundings.

    Parameters
    ----------
    blocks
        All blocks of the model (`mm0`, `uni4`) in the order they run.
    streams
        Streams the model's blocks put out: img and txt, and uni where there are unified blocks.
    iterations
        (iteration,) at which losses are kept; NaN after an early stop.
    compared
        Whether all roundings are measured with the same inputs: `method_error`.
    """
    labels = {"block": blocks, "stream": streams, "rounding_method": METHODS}
    labels |= {"inputs": INPUTS} if compared else {}
    by_method = ("block", "stream", "rounding_method")
    more = (Array("method_error", (*by_method, "inputs"), "float64"),) if compared else ()
    kept = np.asarray(iterations, np.int64)
    coords: Coords = {
        **{dim: ((dim,), np.array(list(names), dtype=object)) for dim, names in labels.items()},
        "iteration": (("iteration",), kept),
    }
    return Template(
        path=RECONSTRUCTION,
        kind=RECONSTRUCTION,
        sizes={dim: len(values) for dim, (_, values) in coords.items()},
        arrays=(
            Array("output_error", by_method, "float64"),
            *more,
            Array("output_power", ("block", "stream"), "float64"),
            Array("loss", ("block", "iteration"), "float32"),
            Array("rounding_loss", ("block", "iteration"), "float32"),
            Array("iterations", ("block",), "int64"),
            Array("seconds", ("block",), "float64"),
        ),
        coords=coords,
        item_dims=("block",),
        attrs=attrs or {},
    )
