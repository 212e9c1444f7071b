"""One view of every source of statistics: batches pooled, linears named, layers chosen.

Observed groups (`activations/<site>`) carry a batch axis, pooled ones do not, and each spells its
statistics in its own way. Everything here returns arrays over (step, layer, ...), so that the
figures need not know which source they show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr

from taqstore.errors import MissingError, problem
from taqstore.names import LayerName, parse_layer
from taqstore.query.select import select

Alternatives = tuple[tuple[str, ...], ...]

EXTREMA: Alternatives = (("min", "max"), ("avg_min", "avg_max"))
MOMENTS: Alternatives = (("mean", "std"), ("mean", "m2", "count"))
BINS: Alternatives = (
    ("histogram", "bin_edges"),
    ("histogram", "bin_left", "bin_right"),
    ("hist_counts", "hist_edges"),
)
TRUE_EXTREMA = "extrema"
AVERAGED = "means over images of per-image extrema"
_SITE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def require(dataset: xr.Dataset, alternatives: Alternatives, *, where: str) -> tuple[str, ...]:
    """First of `alternatives` whose variables `dataset` all has.

    Raises
    ------
    MissingError
        None is complete; the message names what is needed and what is there.
    """
    if names := first_complete(dataset, alternatives):
        return names
    raise MissingError(
        problem(
            f"needs {' or '.join(' with '.join(names) for names in alternatives)}",
            where=where,
            found=", ".join(map(str, dataset.data_vars)) or "no variables",
            remedy="choose a group that holds them",
        )
    )


def first_complete(dataset: xr.Dataset, alternatives: Alternatives) -> tuple[str, ...]:
    """First of `alternatives` whose variables `dataset` all has; empty if none is complete."""
    for names in alternatives:
        if all(name in dataset.variables for name in names):
            return names
    return ()


def full_name(identity: LayerName) -> str:
    """Canonical full name, also of sites split by width: `mm0.img.mlp.fc2.c1280`."""
    if identity.site.count(".") == 1:
        return identity.full
    return ".".join(part for part in (identity.layer, identity.site) if part)


def file_name(name: str) -> str:
    """Filename form of a canonical name: `mm0.img.mlp.fc2` -> `mm0_img_mlp_fc2`."""
    return name.replace(".", "_")


def linear_view(
    dataset: xr.Dataset,
    names: Sequence[str],
    *,
    site: str = "",
    layers: Sequence[str] | None = None,
) -> xr.Dataset:
    """Variables `names` of a group, one `layer` entry per linear, labelled by its full name.

    A `projection` dimension is unfolded into `layer`. Coordinates added along `layer`: `block`
    (int), `stream`, `projection` ("" where the three are one). `layers` are known spellings of
    layers or linears, or globs over layer labels. Steps run from noise to image.

    Raises
    ------
    MissingError
        A layer name or `site` is not known, or one of `layers` matches nothing.
    """
    if site and not _SITE.fullmatch(site):
        raise MissingError(problem(f"site {site!r} is not known", remedy="write it like mlp.fc2"))
    chosen = dataset[list(names)]
    if layers:
        chosen = select(chosen, layer=",".join(layers), site=site)
    chosen = _unfold_projections(chosen)
    pairs = zip(chosen["layer"].values, chosen["projection"].values, strict=True)
    linears = [_identity(str(layer), site, str(projection)) for layer, projection in pairs]
    named = chosen.assign_coords(
        layer=[full_name(linear) for linear in linears],
        block=("layer", np.array([linear.sort_key[1] for linear in linears], dtype=np.int64)),
        stream=("layer", np.array([linear.stream for linear in linears], dtype=object)),
        projection=("layer", np.array([linear.projection for linear in linears], dtype=object)),
    )
    return _noise_first(named)


def _unfold_projections(dataset: xr.Dataset) -> xr.Dataset:
    if "projection" not in dataset.dims:
        return dataset.assign_coords(projection=("layer", [""] * dataset.sizes["layer"]))
    parts = []
    for index, name in enumerate(dataset["projection"].values):
        part = dataset.isel(projection=index, drop=True)
        parts.append(part.assign_coords(projection=("layer", [str(name)] * part.sizes["layer"])))
    return xr.concat(parts, dim="layer", data_vars="minimal", coords="minimal", compat="override")


def _identity(layer: str, site: str, projection: str) -> LayerName:
    known = parse_layer(layer)
    site = site or known.site or ("attn.qkv" if projection else "")
    return LayerName(known.block, known.stream, site, projection or known.projection)


def noise_coordinate(data: xr.Dataset) -> tuple[str, np.ndarray]:
    """Name and values of what orders the steps: `sigma`, or `step` where sigma is not known.

    Sigma is taken only if every step has its own finite value; steps count from noise to image.
    """
    if "sigma" in data.coords:
        sigma = np.asarray(data["sigma"].values, dtype=np.float64)
        if np.isfinite(sigma).all() and len(np.unique(sigma)) == len(sigma):
            return "sigma", sigma
    return "step", np.asarray(data["step"].values, dtype=np.float64)


def _noise_first(data: xr.Dataset) -> xr.Dataset:
    name, values = noise_coordinate(data)
    order = np.argsort(-values if name == "sigma" else values, kind="stable")
    return data if (np.diff(order) == 1).all() else data.isel(step=order)


def extrema(view: xr.Dataset) -> xr.Dataset:
    """`lower` and `upper` (step, layer, channel) float64: extrema over all batches.

    Where the source has only `avg_min` and `avg_max`, these are means over images of per-image
    extrema, and the attribute `extrema` says so.
    """
    low, high = require(view, EXTREMA, where="extrema")
    lower, upper = view[low], view[high]
    if "batch" in lower.dims:
        # A channel that one batch did not see is unknown, not "the extreme of the others".
        lower, upper = lower.min("batch", skipna=False), upper.max("batch", skipna=False)
    pair = xr.Dataset({"lower": lower.astype(np.float64), "upper": upper.astype(np.float64)})
    return pair.assign_attrs(extrema=AVERAGED if low == "avg_min" else TRUE_EXTREMA)


def moments(view: xr.Dataset) -> xr.Dataset:
    """`mean` and `std` (step, layer, channel) float64, population standard deviation.

    Batches are merged as in Chan, Golub & LeVeque (1979): the pooled sum of squared deviations is
    the sum of the batches' own plus ``count * (batch mean - pooled mean)**2``.
    """
    names = require(view, MOMENTS, where="moments")
    mean = view["mean"].astype(np.float64)
    if "std" in names:
        return xr.Dataset({"mean": mean, "std": view["std"].astype(np.float64)})
    count, m2 = view["count"].astype(np.float64), view["m2"].astype(np.float64)
    if "batch" in mean.dims:
        seen, weight = count > 0, count
        count = weight.sum("batch")
        pooled = (mean * weight).where(seen, 0.0).sum("batch", skipna=False)
        pooled = pooled / count.where(count > 0)
        m2 = (m2 + weight * (mean - pooled) ** 2).where(seen, 0.0).sum("batch", skipna=False)
        mean = pooled
    return xr.Dataset({"mean": mean, "std": np.sqrt(m2 / count.where(count > 0))})


def bins(view: xr.Dataset) -> xr.Dataset:
    """`counts` (step, layer, bin) with bin bounds `left` and `right`, (bin) or per step and layer.

    Float-bit-prefix bins have their bounds as coordinates, fixed bins share one row of edges, and
    sampled histograms (`hist_counts`) have edges of their own for every step and layer.
    """
    names = require(view, BINS, where="histogram")
    counts = view[names[0]]
    if "batch" in counts.dims:
        counts = counts.sum("batch")
    if len(names) == 3:
        left, right = view["bin_left"], view["bin_right"]
    else:
        edges = view[names[1]].astype(np.float64)
        left = edges.isel(edge=slice(None, -1)).rename(edge="bin").drop_vars("bin", errors="ignore")
        right = edges.isel(edge=slice(1, None)).rename(edge="bin").drop_vars("bin", errors="ignore")
    bounds = {"left": left.astype(np.float64), "right": right.astype(np.float64)}
    return xr.Dataset({"counts": counts, **bounds}).reset_coords(
        ["bin_left", "bin_right"] if len(names) == 3 else [], drop=True
    )
