"""What `taqstore query` does, as two lazy Dataset -> Dataset functions: `select` and `reduce`.

Three rules hold for selections. Integer options (`step`, `image`, `batch`, `channel`) speak of
labels and follow Python's `range`: ``A:B:S`` keeps A, A+S, ... below B, so the end is left out.
`sigma` is a closed interval. An empty result is an error that names what there is.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from taqstore.asked import listed, meant, nearest
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.names import LayerName, block_number, parse_layer
from taqstore.query.reduction import reduce
from taqstore.store.given import handed

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["reduce", "select"]

_GLOB = re.compile(r"[*?\[]")


@handed
def select(
    dataset: xr.Dataset,
    *,
    layer: str | None = None,
    step: str | None = None,
    sigma: str | None = None,
    image: str | None = None,
    batch: str | None = None,
    channel: str | None = None,
    stream: str | None = None,
    block: str | None = None,
    site: str = "",
) -> xr.Dataset:
    """Keep the labels that every given option allows; nothing is read but coordinates.

    Commas join alternatives in every option but `sigma`: ``0,3,6``, ``mm0.img,mm1.*``.

    Parameters
    ----------
    layer
        Glob over layer labels (``mm*.img``) or any spelling `names.parse_layer` knows; one that
        names a projection also selects it where the dataset has that dimension.
    step, image, batch, channel
        A label, or ``A:B:S`` as `range(A, B, S)`. Dimensions without labels count from 0. `image`
        on observations keeps the batches that hold it.
    sigma
        ``LO:HI``, both ends included, either may be left out; compared in the dtype of `sigma`.
    stream, block
        Globs over the coordinates of `layer`. On residual streams `block` selects the boundary
        before that block: ``mm3``, ``3`` or ``0:4``.
    site
        Site the dataset is of; a layer spelling that names another one is then refused.

    Raises
    ------
    MissingError
        The dimension is not in the dataset, or nothing is left.
    MisuseError
        An option cannot be read.
    """
    if layer is not None:
        dataset = _select_layer(dataset, layer, site)
    if sigma is not None:
        dataset = _select_sigma(dataset, sigma)
    if image is not None:
        dataset = _select_image(dataset, image)
    for dim, text in (("step", step), ("batch", batch), ("channel", channel)):
        if text is not None:
            dataset = _select_integers(dataset, dim, text)
    if stream is not None:
        dataset = _select_glob(dataset, "stream", stream)
    if block is not None:
        dataset = _select_block(dataset, block)
    return dataset


def _select_layer(dataset: xr.Dataset, text: str, site: str) -> xr.Dataset:
    labels = _labels(dataset, "layer")
    keep = np.zeros(len(labels), bool)
    projections: set[str] = set()
    for pattern in _parts(text, "--layer"):
        if _GLOB.search(pattern):
            keep |= [fnmatchcase(str(label), pattern) for label in labels]
            continue
        name = _parsed(pattern, labels, site)
        # A group of one width among several is called like mlp.fc2.c1280.
        if site and name.site and not f"{site}.".startswith(f"{name.site}."):
            raise MissingError(
                problem(
                    f"layer {pattern!r} is the input of {name.site}, not of {site}",
                    remedy="query that group, or name the layer alone, like " + name.layer,
                )
            )
        # Weights are of the linear itself, statistics of the tensor that it reads.
        own = labels == name.layer
        keep |= own if own.any() or not name.site else labels == name.input.layer
        projections.add(name.projection)
    dataset = _keep(dataset, "layer", keep, text)
    if "projection" in dataset.dims and projections and "" not in projections:
        wanted = np.isin(_labels(dataset, "projection").astype(str), sorted(projections))
        dataset = _keep(dataset, "projection", wanted, text)
    return dataset


def _parsed(pattern: str, labels: np.ndarray, site: str) -> LayerName:
    try:
        return parse_layer(pattern)
    except MissingError as error:
        layers = list(map(str, labels))
        full = [f"{layer}.{site}" for layer in layers] if site else []
        near = nearest(pattern, [*layers, *full])
        if not near:
            raise
        remedy = f"did you mean {near}? There is {listed(layers)}"
        raise MissingError(
            problem(f"layer name {pattern!r} is not known", remedy=remedy)
        ) from error


def _select_sigma(dataset: xr.Dataset, text: str) -> xr.Dataset:
    if "sigma" not in dataset.coords:
        raise _no_coordinate(dataset, "sigma")
    low, separator, high = text.partition(":")
    try:
        bounds = float(low or "-inf"), float(high or "inf")
    except ValueError:
        separator = ""
    if not separator:
        raise MisuseError(problem(f"sigma range {text!r} cannot be read", remedy="write LO:HI"))
    sigma = dataset["sigma"].values
    # A Python float is weak beside float32: a bound typed as printed meets its sigma exactly.
    keep = (sigma >= bounds[0]) & (sigma <= bounds[1])
    (dim,) = dataset["sigma"].dims
    return _keep(dataset, dim, keep, text, option="sigma", shown=sigma)


def _select_image(dataset: xr.Dataset, text: str) -> xr.Dataset:
    if "image" in dataset.dims or "image" not in dataset.coords:
        return _select_integers(dataset, "image", text)
    images = dataset["image"]
    # Empty slots hold -1, which no option may mean.
    inside = _inside(images.values, text, "image") & (images.values >= 0)
    (dim,) = (d for d in images.dims if d != "slot")
    others = tuple(axis for axis, d in enumerate(images.dims) if d != dim)
    keep = np.asarray(inside.any(axis=others))
    return _keep(dataset, dim, keep, text, option="image", shown=images.values.ravel())


def _select_integers(dataset: xr.Dataset, dim: str, text: str) -> xr.Dataset:
    labels = _labels(dataset, dim)
    return _keep(dataset, dim, _inside(labels, text, dim), text)


def _select_glob(dataset: xr.Dataset, name: str, text: str) -> xr.Dataset:
    if name not in dataset.coords:
        raise _no_coordinate(dataset, name)
    values = dataset[name].values
    patterns = _parts(text, f"--{name}")
    keep = np.array([any(fnmatchcase(str(v), p) for p in patterns) for v in values], bool)
    (dim,) = dataset[name].dims
    return _keep(dataset, dim, keep, text, option=name, shown=values)


def _select_block(dataset: xr.Dataset, text: str) -> xr.Dataset:
    if "block" in dataset.coords or "boundary" not in dataset.dims:
        return _select_glob(dataset, "block", text)
    ends = [map(block_number, part.split(":")) for part in _parts(text, "--block")]
    numbers = ",".join(":".join(part) for part in ends)
    keep = _inside(_labels(dataset, "boundary"), numbers, "block")
    return _keep(dataset, "boundary", keep, text, option="block")


def _parts(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise MisuseError(problem(f"{option} {text!r} has an empty part"))
    return parts


def _labels(dataset: xr.Dataset, dim: str) -> np.ndarray:
    """Labels of a dimension; positions where it has none."""
    if dim not in dataset.dims:
        remedy = meant(dim, dataset.dims)
        raise MissingError(problem(f"no dimension {dim!r} here", remedy=remedy))
    if dim not in dataset.coords:
        return np.arange(dataset.sizes[dim])
    labels: np.ndarray = dataset[dim].values
    return labels


def _inside(labels: np.ndarray, text: str, name: str) -> np.ndarray:
    """True where a label is in any comma-separated part of `text` (integers and ranges)."""
    keep = np.zeros(labels.shape, bool)
    for part in _parts(text, f"--{name}"):
        try:
            numbers = [int(field) if field else None for field in part.split(":")]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 3 or (len(numbers) == 1 and numbers[0] is None):
            raise _unreadable(name, part)
        keep |= labels == numbers[0] if len(numbers) == 1 else _in_range(labels, numbers, name)
    return keep


def _in_range(labels: np.ndarray, numbers: list[int | None], name: str) -> np.ndarray:
    start, stop, stride = (*numbers, None)[:3]
    stride = 1 if stride is None else stride
    if stride <= 0:
        what = f"--{name} has the stride {stride}"
        raise MisuseError(problem(what, remedy="strides count from 1"))
    # An open start counts strides from the first label there is, as a slice would.
    first = int(labels.min()) if start is None and labels.size else start or 0
    keep: np.ndarray = (labels >= first) & ((labels - first) % stride == 0)
    if stop is not None:
        keep &= labels < stop
    return keep


def _keep(
    dataset: xr.Dataset,
    dim: Hashable,
    keep: np.ndarray,
    text: str,
    *,
    option: str = "",
    shown: np.ndarray | None = None,
) -> xr.Dataset:
    """Index `dim` where `keep`; refuse an empty result by naming what there is."""
    positions = np.flatnonzero(keep)
    if positions.size == 0:
        labels = _labels(dataset, str(dim)) if shown is None else shown
        what = f"nothing matches --{option or dim} {text}"
        texts = [str(label) for label in labels.tolist() if isinstance(label, str)]
        near, there = nearest(text, texts), f"there is {_summary(labels)}"
        remedy = f"did you mean {near}? T{there[1:]}" if near else there
        raise MissingError(problem(what, remedy=remedy))
    return dataset.isel({dim: _as_slice(positions)})


def _as_slice(positions: np.ndarray) -> slice | np.ndarray:
    """A slice where the positions are evenly spaced: views stay views, dask graphs stay small."""
    if positions.size == 1:
        return slice(int(positions[0]), int(positions[0]) + 1)
    strides = np.diff(positions)
    if np.all(strides == strides[0]):
        return slice(int(positions[0]), int(positions[-1]) + 1, int(strides[0]))
    return positions


def _summary(labels: np.ndarray, most: int = 8) -> str:
    names = [str(label) for label in dict.fromkeys(labels.tolist())]
    if len(names) <= most:
        return ", ".join(names) or "nothing"
    return f"{', '.join(names[:3])}, ..., {names[-1]} ({len(names)} in all)"


def _unreadable(name: str, part: str) -> MisuseError:
    what = f"--{name} {part!r} is neither an integer nor a range"
    return MisuseError(problem(what, remedy="write it like 3, 0:10 or 0:50:5"))


def _no_coordinate(dataset: xr.Dataset, name: str) -> MissingError:
    remedy = meant(name, dataset.coords)
    return MissingError(problem(f"no coordinate {name!r} here", remedy=remedy))
