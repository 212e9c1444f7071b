"""Templates of what weight quantization leaves: `weights/<set>/<site>` and `reconstruction`.

A layer is an item of `weights/<set>/<site>`, a block one of `reconstruction`. Whoever quantizes a
block commits its layers first and the block last: a flagged block has all of its layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.errors import LayoutError, problem
from taqstore.kinds.templates import Coords, layer_coords
from taqstore.kinds.weight_sets import ADAROUND, check_set, reconstruction_path
from taqstore.layout.template import Array, Template
from taqstore.names import PROJECTIONS, RECONSTRUCTION, SITES, WEIGHTS

METHODS = ("adaround", "rtn", "clipped")
"""Roundings whose block errors are kept beside each other."""

START = "start"
"""The weights that AdaRound began from, where these were another set."""
INPUTS = ("float", "first", "learned")
"""How inputs of linears are quantized while roundings are compared: not at all, as the optimisation
began, as it ended."""


def weights_template(
    site: str,
    *,
    set: str = ADAROUND,
    layers: Sequence[str],
    shape: tuple[int, int],
    groups: int = 1,
    sigma_lower: ArrayLike = (0.0,),
    shifted: bool = False,
    multiplied: bool = False,
    offset: bool = False,
    rounding: bool = True,
    activations: bool = True,
    errors: bool = False,
    rounding_dtype: str = "float32",
    folder: str | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> Template:
    """Template of `weights/<set>/<site>`: a layer owns whole chunks, so that layers commit alone.

    At `attn.qkv` what belongs to one linear has `projection` after `layer`.

    Parameters
    ----------
    site
        Such as `mlp.fc2`; with the outputs where linears of a site differ in them:
        `adaln.linear.o3072`.
    set
        Name of the weight set.
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
    offset
        Whether grids of weights have an offset: `step_size * weight + offset`.
    rounding
        Whether AdaRound's variable is kept.
    activations
        Whether inputs are quantized; `shifted` and `multiplied` need it.
    errors
        Whether it is kept what each linear lost on the second moment of its input, beside rounding
        to nearest, and which moment that was.
    rounding_dtype
        `float32` or `float16`.
    folder
        As of `weight_sets.folder_of`, for a set that lies in the old place; it then has no
        `weight_bits`, as older versions made it. None: `weights/<set>`.
    attrs
        Attributes of the group: `run`, with `method`, `bits`, `group_size` and `grid`.

    Raises
    ------
    MisuseError
        No set can be called so.
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
    timed = (*linear, "time_group")
    old = folder == WEIGHTS
    arrays = [
        (True, Array("weight", (*linear, "out", "in"), "int8")),
        (True, Array("step_size", (*linear, "out", "group"), "float32")),
        (offset, Array("offset", (*linear, "out", "group"), "float32")),
        (not old, Array("weight_bits", linear, "int8")),
        (errors, Array("linear_error", linear, "float64")),
        (errors, Array("nearest_error", linear, "float64")),
        (errors, Array("moment_block", ("layer",), "int32")),
        (rounding, Array("rounding", (*linear, "out", "in"), rounding_dtype)),
        (activations, Array("activation_step", timed, "float32")),
        (activations, Array("activation_zero_point", timed, "int32")),
        (activations, Array("activation_bits", ("layer", "time_group"), "int8")),
        (shifted, Array("activation_shift", ("layer", "time_group", "in"), "float32")),
        (multiplied, Array("activation_multiplier", ("layer", "in"), "float32")),
    ]
    return Template(
        path=f"{folder or f'{WEIGHTS}/{check_set(set)}'}/{site}",
        kind=WEIGHTS,
        sizes=sizes,
        arrays=tuple(array for kept, array in arrays if kept),
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


def time_group_of(sigmas: ArrayLike, sigma_lower: ArrayLike) -> NDArray[np.int64]:
    """Time group of each noise level: the first whose `sigma_lower` is at most the level.

    Parameters
    ----------
    sigmas
        Any shape.
    sigma_lower
        (time_group,), descending; the last is 0 or less.

    Examples
    --------
    >>> time_group_of([1.0, 0.5, 0.25, 0.0], [0.5, 0.0]).tolist()
    [0, 0, 1, 1]
    """
    level = np.asarray(sigmas, np.float32)[..., None]
    return np.asarray((level < np.asarray(sigma_lower, np.float32)).sum(axis=-1), np.int64)


def reconstruction_template(
    *,
    set: str = ADAROUND,
    blocks: Sequence[str],
    streams: Sequence[str],
    iterations: ArrayLike,
    compared: bool = False,
    started: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> Template:
    """Template of `reconstruction`: what quantizing each block cost, against simpler roundings.

    Parameters
    ----------
    set
        Name of the weight set; that of `adaround` is at the root.
    blocks
        All blocks of the model (`mm0`, `uni4`) in the order they run.
    streams
        Streams the model's blocks put out: img and txt, and uni where there are unified blocks.
    iterations
        (iteration,) at which losses are kept; NaN after an early stop.
    compared
        Whether all roundings are measured with the same inputs: `method_error`.
    started
        Whether the optimisation began from another set, which is measured too: `START`.
    """
    methods = (*METHODS, START) if started else METHODS
    labels = {"block": blocks, "stream": streams, "rounding_method": methods}
    labels |= {"inputs": INPUTS} if compared else {}
    by_method = ("block", "stream", "rounding_method")
    more = (Array("method_error", (*by_method, "inputs"), "float64"),) if compared else ()
    kept = np.asarray(iterations, np.int64)
    coords: Coords = {
        **{dim: ((dim,), np.array(list(names), dtype=object)) for dim, names in labels.items()},
        "iteration": (("iteration",), kept),
    }
    return Template(
        path=reconstruction_path(check_set(set)),
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
