"""One number of every step and linear: the overview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from taqstore.analysis.ranges.options import CLIP, RANGE
from taqstore.analysis.shared.option import Option
from taqstore.analysis.table import ANALYSES
from taqstore.errors import MissingError, problem
from taqstore.names import site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.served.side_by_side import side_by_side
from taqstore.serve.views.asking import (
    BATCH,
    LAYERS,
    SITES,
    SOURCE,
    Part,
    along_steps,
    layer_particulars,
    rules_offered,
)
from taqstore.serve.views.effects import FORMAT, UNIT, effects_map, formats_of
from taqstore.serve.views.quantities import QUANTITIES, SENSITIVITY, Quantity

if TYPE_CHECKING:
    import xarray as xr

RULE_CHOICE = CLIP.but(help="Rule whose command is shown.")
QUANTITY = Option("quantity", "Which number.", str, "absmax", choices=QUANTITIES)
STREAM = Option("stream", "Glob over streams: img, txt, uni.", str)
_WIDE = tuple(row for row in ANALYSES["outliers"].options if row.name in ("threshold", "spike"))
NUMBER = (QUANTITY, *RANGE, *_WIDE, FORMAT, UNIT)
"""Which number, and what it depends on."""
OPTIONS = (*NUMBER, SOURCE, SITES, LAYERS, STREAM, BATCH)


def quantity_map(
    service: Service,
    *,
    store: str,
    quantity: str,
    source: str | None = None,
    site: Sequence[str] = (),
    layer: str | None = None,
    stream: str | None = None,
    batch: str | None = None,
    **asked: Any,
) -> dict[str, Any]:
    """A quantity of every (layer, step) of a store, by site.

    Options that the quantity does not depend on are passed over.

    Returns
    -------
    What `Quantity.document` tells of it, and ``asked``, its options as settled; ``source``;
    ``steps`` and ``sigma`` (None where it is not known); ``rows``: ``site``, ``layer``,
    ``projection`` (empty where the three are one), ``block``, its ``number`` and ``stream`` (empty
    and None outside blocks), ``values`` over the steps, None where nothing is known, ``inf`` and
    ``-inf`` as text; ``left_out``: a line on each site that cannot tell; ``quantities`` that this
    store can be asked for; ``rules`` and ``sources`` to choose from; ``cli``, ``python``.
    Sensitivities of linears have no steps: the only one is called ``all``.

    Raises
    ------
    MissingError
        No such source, site or layer, or no site has what is needed.
    """
    row = QUANTITIES[quantity]
    part = Part(service, store, batch)
    offered = offered_by(service, store)
    if row.analysis == SENSITIVITY:
        found = effects_map(service, store, asked.get("format"), asked.get("unit"))
        return {**row.document(quantity), **found, **offered}
    options = {name: asked[name] for name in row.takes if asked.get(name) is not None}
    told, left_out = values_of(part, row, options, source, site, layer)
    rows, steps = laid_out(row, told, layer, stream)
    if not rows:
        raise MissingError(problem("no layer is of this stream", found=stream or layer or ""))
    shown = part.shown(
        row.analysis,
        {**row.fixed, **options},
        source=source,
        sites=site,
        layer=_layer_text(rows, layer, stream),
    )
    return {
        **row.document(quantity),
        "asked": options,
        "source": split_group(next(iter(told)))[0],
        **steps,
        "rows": rows,
        "left_out": left_out,
        **offered,
        **shown,
    }


def values_of(
    part: Part,
    row: Quantity,
    options: Mapping[str, Any],
    source: str | None,
    sites: Sequence[str],
    layer: str | None,
) -> tuple[dict[str, xr.DataArray], list[str]]:
    """The quantity (step, layer) of every site that can tell, by path; and a line on the others."""
    from taqstore.query.sites import answers

    left_out: list[str] = []
    variables = _together(row)

    def ask(path: str) -> xr.DataArray:
        found = part.answer(row.analysis, path, variables, small=row.small, **row.fixed, **options)
        if row.variable not in found:
            what = f"{row.analysis} of {path} tells no {row.variable}"
            raise MissingError(problem(what, found=", ".join(map(str, found.data_vars))))
        return found[row.variable]

    paths = part.paths(source, sites, layer)
    told = answers(side_by_side(ask, paths), paths, on_skip=left_out.append)
    return told, left_out


def _together(row: Quantity) -> tuple[str, ...]:
    """Variables that come at the price of one: what other quantities of the same answer show."""
    same = (other.variable for other in QUANTITIES.values() if _source(other) == _source(row))
    return tuple(dict.fromkeys(same))


def _source(row: Quantity) -> tuple[Any, ...]:
    return row.analysis, row.takes, row.fixed, row.small


def laid_out(
    row: Quantity, told: Mapping[str, xr.DataArray], layer: str | None, stream: str | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows over the steps that any site has, and these steps."""
    import numpy as np

    from taqstore.query.select import select
    from taqstore.query.sites import answers

    if layer is not None:

        def narrowed(path: str) -> xr.DataArray:
            return select(told[path].to_dataset(), layer=layer, site=site_of(path))[row.variable]

        told = answers(narrowed, list(told))
    sigma: dict[int, Any] = {}
    for array in told.values():
        known = array["sigma"].values if "sigma" in array.coords else [None] * array.sizes["step"]
        sigma |= dict(zip(array["step"].values.tolist(), known, strict=True))
    steps = sorted(sigma)
    rows = []
    for path, array in told.items():
        aligned = array if array["step"].values.tolist() == steps else array.reindex(step=steps)
        for name, projection, values in along_steps(aligned):
            place = layer_particulars(name)
            if stream and not fnmatchcase(place["stream"], stream):
                continue
            rows.append({"site": site_of(path), "layer": name, "projection": projection,
                         **place, "values": values})  # fmt: skip
    levels = [sigma[step] for step in steps]
    told_of_all = all(level is not None for level in levels)
    return rows, {"steps": steps, "sigma": np.array(levels) if told_of_all else None}


def _layer_text(
    rows: Sequence[Mapping[str, Any]], layer: str | None, stream: str | None
) -> str | None:
    """Layers as the command line takes them: it knows no streams here, but their layers."""
    if stream is None:
        return layer
    return ",".join(dict.fromkeys(row["layer"] for row in rows))


def offered_by(service: Service, store: str) -> dict[str, Any]:
    """``quantities``, ``rules`` and ``sources`` that a store can be asked for."""
    return service.kept(store, ("offered",), lambda: _offered(service, store))


def _offered(service: Service, store: str) -> dict[str, Any]:
    from taqstore.kinds.statistics_sources import preferred
    from taqstore.names import split_group

    opened = service.store(store)
    by_source: dict[str, set[str]] = {}
    for path in opened:
        if split_group(path)[0] in preferred("analyses"):
            names = {str(name) for name in opened[path].data_vars}
            by_source.setdefault(split_group(path)[0], set()).update(names)
    have = set().union(*by_source.values())
    formats = formats_of(service, store)
    return {
        "quantities": [
            row.document(word)
            for word, row in QUANTITIES.items()
            if (formats if row.analysis == SENSITIVITY else row.is_told_by(have))
        ],
        "rules": rules_offered(),
        "sources": [prefix for prefix in preferred("analyses") if prefix in by_source],
    }
