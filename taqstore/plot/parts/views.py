"""One view of every source of statistics: batches pooled, linears named, layers chosen.

Observed groups (`activations/<site>`) carry a batch axis, pooled ones do not, and each spells its
layers and statistics in its own way; figures need not know which source they show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import channel_bounds, first_complete
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.names import Alternatives, LayerName, parse_layer
from taqstore.query.select import select

TRUE_EXTREMA = "extrema"
AVERAGED = "means over images of per-image extrema"
_SITE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


def require(dataset: xr.Dataset, alternatives: Alternatives, *, where: str) -> Sequence[str]:
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
        raise MisuseError(problem(f"site {site!r} is not known", remedy="write it like mlp.fc2"))
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
    bounds = channel_bounds(view, analysis="extrema")
    kind = TRUE_EXTREMA if "min" in view.variables else AVERAGED
    return xr.Dataset({"lower": bounds.lower, "upper": bounds.upper}, attrs={"extrema": kind})
