"""What quantizing one part of a model does to its trajectories, and static scores of the parts.

`sensitivity/<unit>/<format>` has the effects, `scores/<unit>/<format>` what is known without
running the model. A *target* is what is quantized alone, a *format* is how.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from taqstore.asked import word_of
from taqstore.errors import MisuseError, problem
from taqstore.kinds.templates import Coords
from taqstore.layout.template import Array, Template
from taqstore.names import SCORES, SENSITIVITY, WRITTEN
from taqstore.store.given import handed

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]

UNITS = ("linear", "block", "site", "step")
"""What a target is: a linear, all linears of a block or of a site, or all at one step."""
EFFECTS = ("latent_error", "worst_error", "worst_cosine", "cosine")
"""What a target does to an image, as numbers; `delta` is all of it."""
STATIC = (
    *("weight_absmax", "weight_kurtosis", "weight_power", "weight_error", "weight_sqnr"),
    *("imatrix_error", "imatrix_power", "moment_error", "output_power"),
)
"""Static scores that a store keeps."""

_ITEM = ("image", "target")
_LATENT = ("height", "width", "latent_channel")
_FORMAT = re.compile(r"[a-z][a-z0-9_-]{0,47}")
_INPUTS = re.compile(r"a(?P<bits>\d{1,2})-(static|step|grouped|learned)(-mse)?(-shift)?")
_ROUNDED = re.compile(
    r"(?P<how>rtn|clipped|mlx|comfy|comfy-gptq)(?:-w(?P<bits>\d))?(?:-g[1-9]\d{0,5})?"
)
_BITS = 4.0


def check_format(name: str) -> str:
    """The name of a format, as it then is.

    Raises
    ------
    MisuseError
        No format can be called so.
    """
    if _FORMAT.fullmatch(name) is None:
        what = f"{name!r} is no name of a format"
        remedy = "write it like rtn-w4, mlx-w3-g64, a4-static, or the name of a weight set"
        raise MisuseError(problem(what, remedy=remedy))
    return name


def quantizes_inputs(format: str) -> bool:
    """Whether a format is of inputs, so that weights stay as they are.

    >>> quantizes_inputs("a4-static-mse"), quantizes_inputs("rtn-w4")
    (True, False)
    """
    return _INPUTS.fullmatch(format) is not None


def format_bits(format: str) -> float:
    """Bits that a format's name says, 4 where it is of weights and says none; NaN of weight sets.

    >>> format_bits("mlx-w3-g64"), format_bits("rtn"), format_bits("a8-static")
    (3.0, 4.0, 8.0)
    """
    match = _INPUTS.fullmatch(format) or _ROUNDED.fullmatch(format)
    if match is None:
        return float("nan")
    return float(match["bits"] or _BITS)


def sensitivity_template(
    unit: str,
    format: str,
    *,
    images: Sequence[int],
    prompts: Sequence[str],
    seeds: Sequence[int],
    cfg_weights: ArrayLike,
    targets: Sequence[str],
    weights: ArrayLike,
    input_channels: ArrayLike,
    shape: tuple[int, int, int],
    attrs: Mapping[str, Any],
) -> Template:
    """Template of `sensitivity/<unit>/<format>`: an (image, target) is an item.

    Parameters
    ----------
    images, prompts, seeds, cfg_weights
        (image,) as of `trajectories/float`.
    targets
        Every target that the model has for this format, measured or not.
    weights, input_channels
        (target,) how many weights, and channels of inputs over all its linears, are quantized.
    shape
        Height, width and channels of a latent.

    Raises
    ------
    MisuseError
        There is no such unit, or no format can be called so.
    """
    number = dict.fromkeys(("latent_norm", *EFFECTS), "float64") | {"worst_step": "int64"}
    coords: Coords = {
        "image": (("image",), np.array(images, np.int64)),
        "prompt": (("image",), np.array(list(prompts), dtype=object)),
        "seed": (("image",), np.array(seeds, np.int64)),
        "cfg_weight": (("image",), np.asarray(cfg_weights, np.float64)),
        **_target_coords(targets, weights),
        "input_channels": (("target",), np.asarray(input_channels, np.int64)),
    }
    sizes = (len(images), len(targets), *shape)
    return Template(
        path=path_of(SENSITIVITY, unit, format),
        kind=SENSITIVITY,
        sizes=dict(zip((*_ITEM, *_LATENT), sizes, strict=True)),
        arrays=(
            Array("delta", (*_ITEM, *_LATENT), "float32"),
            *(Array(name, _ITEM, dtype) for name, dtype in number.items()),
        ),
        coords=coords,
        item_dims=_ITEM,
        attrs=attrs,
    )


def scores_template(
    unit: str,
    format: str,
    *,
    targets: Sequence[str],
    weights: ArrayLike,
    attrs: Mapping[str, Any],
) -> Template:
    """Template of `scores/<unit>/<format>`: static scores, a target is an item; as above."""
    return Template(
        path=path_of(SCORES, unit, format),
        kind=SCORES,
        sizes={"target": len(targets)},
        arrays=tuple(
            Array(name, ("target",), "float64", attrs=_SCORE_ATTRS.get(name, {})) for name in STATIC
        ),
        coords=_target_coords(targets, weights),
        item_dims=("target",),
        attrs=attrs,
    )


_SCORE_ATTRS = {"output_power": {"description": "mean over positions of |W x|^2, summed"}}


def _target_coords(targets: Sequence[str], weights: ArrayLike) -> Coords:
    return {
        "target": (("target",), np.array(list(targets), dtype=object)),
        "weights": (("target",), np.asarray(weights, np.int64)),
    }


def path_of(kind: str, unit: str, format: str) -> str:
    """Path of a group of `sensitivity` or `scores`.

    Raises
    ------
    MisuseError
        There is no such unit, or no format can be called so.
    """
    return f"{kind}/{word_of(unit, UNITS, 'unit')}/{check_format(format)}"


@handed
def sensitivities(groups: Groups, unit: str | None = None) -> dict[tuple[str, str], xr.Dataset]:
    """Sensitivities of a store by (unit, format), units in the order of `UNITS`, then formats.

    A target is there if it is whole for every image, and an image if it is whole for every target:
    of what was measured, the most items that are so.

    Parameters
    ----------
    groups
        A store, or any mapping of group paths to Datasets.
    unit
        Of this unit alone; None: all.

    Raises
    ------
    MisuseError
        There is no such unit.
    """
    wanted = UNITS if unit is None else (word_of(unit, UNITS, "unit"),)
    return _found(groups, SENSITIVITY, wanted)


@handed
def scores(groups: Groups, unit: str | None = None) -> dict[tuple[str, str], xr.Dataset]:
    """Static scores of a store, as `sensitivities`."""
    wanted = UNITS if unit is None else (word_of(unit, UNITS, "unit"),)
    return _found(groups, SCORES, wanted)


def _found(groups: Groups, kind: str, units: Sequence[str]) -> dict[tuple[str, str], xr.Dataset]:
    found = {}
    for unit in units:
        head = f"{kind}/{unit}/"
        for path in sorted(path for path in groups if path.startswith(head)):
            whole = _whole(groups[path])
            if whole.sizes["target"]:
                found[unit, path.removeprefix(head)] = whole
    return found


def _whole(dataset: xr.Dataset) -> xr.Dataset:
    """The largest part of it of which every item is whole."""
    if WRITTEN not in dataset:
        return dataset
    mask = dataset[WRITTEN]
    if "image" not in mask.dims:
        return dataset.isel(target=np.flatnonzero(mask.values)).drop_vars(WRITTEN)
    images, targets = _largest(np.asarray(mask.transpose(*_ITEM).values, bool))
    return dataset.isel(image=images, target=targets).drop_vars(WRITTEN)


def _largest(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of many true items, of which each row has all of the columns."""
    if not mask.size:
        return np.arange(mask.shape[0]), np.arange(0)
    fullest = np.argsort(-mask.sum(axis=1), kind="stable")
    shared = np.logical_and.accumulate(mask[fullest], axis=0)
    items = shared.sum(axis=1) * np.arange(1, len(mask) + 1)
    most = len(mask) - 1 - int(np.argmax(items[::-1]))  # of equal parts the one of more images
    return np.sort(fullest[: most + 1]), np.flatnonzero(shared[most])
