"""What all JSON documents are made from: the sites of one source, and tables of every linear.

Stores keep one entry per tensor and label steps and layers; documents name every linear that reads
it, q, k and v apart, under its full name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from taqstore.analysis.pooling import POOLED_RULES, as_pooled
from taqstore.analysis.shared.inputs import tensor_alpha
from taqstore.asked import listed
from taqstore.errors import MissingError, problem
from taqstore.export.documents.agreed import agreed, by_step, common, forwards
from taqstore.export.documents.clips import ClipBound
from taqstore.kinds.coverage import readers_of
from taqstore.kinds.statistics_sources import Use, preferred, prefix_of
from taqstore.names import (
    ACTIVATIONS,
    ADALN,
    LayerName,
    linear_names,
    parse_layer,
    tensor_site,
)
from taqstore.query.sites import Groups, meant_source, paths_of, site_groups
from taqstore.store.attributes import attribute_of

# Shift vectors read at once; SD3-Medium's 50 steps are 58 MB in float32.
_BLOCK_BYTES = 96 << 20


@dataclass(frozen=True)
class Run:
    """One source of statistics, by site.

    Parameters
    ----------
    source
        Prefix of its groups.
    sites
        Site -> Dataset; observations already pooled as the source collector did.
    stored
        The same as they are stored.
    document
        `layer_statistics.json` of the run, or what stands for it.
    """

    source: str
    sites: Mapping[str, xr.Dataset]
    stored: Mapping[str, xr.Dataset]
    document: Mapping[str, Any] = field(default_factory=dict)

    def seen_by(self, bound: ClipBound) -> Mapping[str, xr.Dataset]:
        """What a rule sees of the sites: the source's own rules see observations pooled."""
        return self.sites if bound.clip in POOLED_RULES else self.stored

    def clip_name(self, bound: ClipBound) -> str:
        """A rule by the name of the source's variable, where it is one of the source's."""
        same = bound.clip == "absmax" and self.source != ACTIVATIONS
        return "tensor_absmax" if same else bound.clip

    @property
    def sigma_map(self) -> dict[str, float]:
        """Sigma of every step, by the step index as text."""
        return {str(int(k)): float(v) for k, v in self.document["sigma_map"].items()}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the run says of itself."""
        return dict(self.document.get("metadata", {}))


def open_run(store: Groups, source: str | None = None) -> Run:
    """Statistics of a store: the pooled ones of the source scripts, or else observations.

    Raises
    ------
    MissingError
        There are none, or none of `source`.
    """
    prefix = find_source(store, source, "documents")
    sites = site_groups(store, prefix)
    standing = {**_described(sites), **_source_document(sites)}
    pooled = {site: as_pooled(dataset, site=site) for site, dataset in sites.items()}
    return Run(prefix, pooled, sites, standing)


def find_source(store: Groups, source: str | None, use: Use) -> str:
    """Source to export: `source`, or else the one that is preferred for this use.

    Raises
    ------
    MissingError
        The store has no groups of it.
    """
    prefixes = preferred(use) if source is None else (prefix_of(source),)
    for prefix in prefixes:
        if paths_of(store, prefix):
            return prefix
    near = meant_source(store, source)
    raise MissingError(
        problem(
            f"no group {' or '.join(f'{prefix}/<site>' for prefix in prefixes)}",
            found=listed(list(store)),
            remedy=near or "ingest such a source first",
        )
    )


def _described(sites: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """Sigmas and metadata from coordinates, in the terms of `layer_statistics.json`."""
    sigmas = {str(step): float(sigma) for step, sigma in by_step(sites, "sigma").items()}
    observed = {site: dataset for site, dataset in sites.items() if "image" in dataset.coords}
    return {"sigma_map": sigmas, "metadata": forwards(observed) if observed else {}}


def _source_document(sites: Mapping[str, xr.Dataset]) -> dict[str, Any]:
    """`layer_statistics.json` as it came with the sites: what they agree in, sigmas of all steps.

    Raises
    ------
    TaqError
        A step has two sigmas.
    """
    found = {site: attribute_of(dataset, "source_document") for site, dataset in sites.items()}
    documents = {site: document for site, document in found.items() if document is not None}
    if not documents:
        return {}
    told: dict[str, dict[str, Any]] = {}
    for site, document in documents.items():
        for step, sigma in document.get("sigma_map", {}).items():
            told.setdefault(step, {})[site] = sigma
    sigmas = {step: agreed(f"sigma of step {step}", values) for step, values in told.items()}
    return {**common(documents), **({"sigma_map": sigmas} if sigmas else {})}


def linear_table(
    sites: Mapping[str, xr.Dataset], *, by_step: Sequence[str] = (), by_layer: Sequence[str] = ()
) -> xr.Dataset:
    """Small variables of all sites with one `linear` entry per linear, in sorted name order.

    Parameters
    ----------
    sites
        Site -> Dataset.
    by_step, by_layer
        Variables over (step, layer[, projection]) and over (layer[, projection]). A site that lacks
        one gives NaN.

    Returns
    -------
    Loaded float64 Dataset over step (ascending), linear; `site` and `row` (position of the layer in
    its site) are coordinates of linear.
    """
    dims = {**dict.fromkeys(by_step, ("step", "linear")), **dict.fromkeys(by_layer, ("linear",))}
    parts = [_unfolded(dataset, site, dims) for site, dataset in sites.items()]
    table = xr.concat(parts, dim="linear", data_vars="minimal", join="outer", fill_value=np.nan)
    order = sorted(range(table.sizes["linear"]), key=lambda i: str(table["linear"].values[i]))
    ordered = table.isel(linear=order).transpose("step", "linear", missing_dims="ignore")
    return ordered.sortby("step") if by_step else ordered


def _unfolded(dataset: xr.Dataset, site: str, dims: Mapping[str, tuple[str, ...]]) -> xr.Dataset:
    """One site with layer (and projection) turned into linear."""
    present = [name for name in dims if name in dataset.data_vars]
    loaded = dataset[present].compute().astype(np.float64)
    names = [linears_of(layer, site, dataset) for layer in dataset["layer"].values]
    linears = [name for group in names for name in group]
    row = [index for index, group in enumerate(names) for _ in group]
    place = {
        "layer": xr.DataArray(row, dims="linear"),
        "projection": xr.DataArray(
            [i for group in names for i in range(len(group))], dims="linear"
        ),
    }
    picked = loaded.isel({d: place[d] for d in ("layer", "projection") if d in loaded.dims})
    columns = {
        name: (d, picked[name].transpose(*d).values) for name, d in dims.items() if name in picked
    }
    steps = {"step": dataset["step"].values} if "step" in dataset.coords else {}
    sizes = {"linear": len(linears), "step": len(steps.get("step", ()))}
    absent = {
        name: (d, np.full([sizes[k] for k in d], np.nan))
        for name, d in dims.items()
        if name not in columns
    }
    coords = {"linear": linears, "row": ("linear", row), "site": ("linear", [site] * len(row))}
    return xr.Dataset({**columns, **absent}, {**coords, **steps})


def linears_of(layer: str, site: str, dataset: xr.Dataset) -> tuple[str, ...]:
    """Full names of the linears that read one layer of a site, in projection order.

    Which adaLN linears there are, the group says; where it does not, the tensor stands for them.
    """
    known = parse_layer(str(layer))
    section = tensor_site(site)
    if section == ADALN:
        told = readers_of(dataset, str(layer))
        return told or linear_names(LayerName(known.block, known.stream, section))
    if section != "attn.qkv" or "projection" not in dataset.coords:
        return linear_names(LayerName(known.block, known.stream, section))
    return tuple(
        LayerName(known.block, known.stream, section, str(projection)).full
        for projection in dataset["projection"].values
    )


def check_known(alpha: xr.DataArray, source: str) -> None:
    """Refuse a document without a single clip bound.

    Raises
    ------
    MissingError
        None is known.
    """
    if not alpha.notnull().any():
        what = "no clip bound of any linear is known: the document would be empty"
        raise MissingError(problem(what, where=source))


def clip_bounds(run: Run, bound: ClipBound) -> xr.Dataset:
    """Table (step, linear) with `alpha`, NaN where a linear is absent, and `has_shift`.

    Raises
    ------
    MissingError
        No bound is known, or a linear that is there has none by this rule.
    """
    parts = {
        site: _bounds_of(run.sites[site], stored, bound)
        for site, stored in run.seen_by(bound).items()
    }
    table = linear_table(parts, by_step=("alpha", "absmax", "has_shift"))
    check_known(table["absmax"], run.source)
    _check_rule(table, run, bound)
    # A source that does not say where it has shifts has them wherever the site has any.
    return table.assign(has_shift=table["has_shift"].fillna(1.0).astype(bool))


def _bounds_of(pooled: xr.Dataset, seen: xr.Dataset, bound: ClipBound) -> xr.Dataset:
    found = {
        "alpha": bound.alpha(seen, analysis="config"),
        "absmax": tensor_alpha(pooled, analysis="config"),
    }
    if "has_shift" in pooled.data_vars:
        found["has_shift"] = pooled["has_shift"]
    coords = {name: pooled[name] for name in ("projection",) if name in pooled.coords}
    return xr.Dataset(found).assign_coords(coords)


def _check_rule(table: xr.Dataset, run: Run, bound: ClipBound) -> None:
    lost = table["alpha"].isnull() & table["absmax"].notnull()
    if not lost.any():
        return
    step, linear = (int(i[0]) for i in np.nonzero(lost.values))
    name, label = str(table["linear"].values[linear]), int(table["step"].values[step])
    raise MissingError(
        problem(
            f"{name} has no clip bound by {bound.clip} at step {label}",
            where=run.source,
            remedy="choose another --clip; hist_p999 falls back on the absmax",
        )
    )


def vectors_by_step(dataset: xr.Dataset, variable: str) -> Iterator[np.ndarray]:
    """Yield ``(layer, channel)`` float64 of one variable, step after step, ascending.

    Steps are read in blocks: a store keeps all steps of a layer together.
    """
    array = dataset[variable].transpose("step", "layer", "channel").sortby("step")
    count = array.sizes["step"]
    width = max(1, _BLOCK_BYTES * count // max(1, array.nbytes))
    for start in range(0, count, width):
        for values in array.isel(step=slice(start, start + width)).values:
            yield np.ascontiguousarray(values, dtype=np.float64)
