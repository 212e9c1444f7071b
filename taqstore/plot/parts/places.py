"""Which panels a page of all sites has, and where they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from taqstore.names import PROJECTIONS, site_rank
from taqstore.plot.parts.drawing import STREAM_NAMES

OUTSIDE = "outside of blocks"
_MOST_COLUMNS = 6

Key = tuple[str, str, str]


@dataclass(frozen=True)
class Panel:
    """One panel.

    Parameters
    ----------
    title
        Stream, site and projection, or `OUTSIDE`.
    data
        Its part of a site. Gathered: of several sites, `block` counts the linears, which the
        coordinate `label` names.
    """

    title: str
    data: xr.Dataset
    row: int
    column: int
    gathered: bool = False


def placed(sites: Mapping[str, xr.Dataset], *, gather: bool) -> tuple[list[Panel], int, int]:
    """Panels of all sites, and how many rows and columns they take.

    Every stream begins a row and has as many as it needs; there is no place without a panel but at
    the end of a row. So linears outside of blocks, whose sites no stream has, cost no columns.

    Parameters
    ----------
    sites
        By site: Datasets along layer with the coordinates of a `views.linear_view`.
    gather
        Whether linears outside of blocks make one panel, where their steps agree.
    """
    parts = _parts(sites)
    outside = {key: data for key, data in parts.items() if not key[0]}
    one = _gathered(outside) if gather and len(outside) > 1 else None
    streams = [stream for stream in STREAM_NAMES if any(key[0] == stream for key in parts)]
    counts = {stream: sum(key[0] == stream for key in parts) for stream in streams}
    if one is not None:
        counts[""] = 1
    inside = [count for stream, count in counts.items() if stream] or [*counts.values()]
    columns = min(max(inside), _MOST_COLUMNS)
    panels: list[Panel] = []
    row = 0
    for stream in streams:
        shown = [(key, data) for key, data in parts.items() if key[0] == stream]
        if one is not None and not stream:
            panels.append(Panel(OUTSIDE, one, row, 0, gathered=True))
        else:
            for number, (key, data) in enumerate(shown):
                place = row + number // columns, number % columns
                panels.append(Panel(_title(key), data, *place))
        row += -(-counts[stream] // columns)
    return panels, row, columns


def _title(key: Key) -> str:
    stream, site, projection = key
    return f"{STREAM_NAMES[stream]}: {site} {projection}".strip()


def _parts(sites: Mapping[str, xr.Dataset]) -> dict[Key, xr.Dataset]:
    """Panels by (stream, site, projection), sites and projections in the order of a block."""
    found: dict[Key, xr.Dataset] = {}
    for site, data in sorted(sites.items(), key=lambda item: site_rank(item[0])):
        found |= dict(_of_site(site, data))
    return found


def _of_site(site: str, data: xr.Dataset) -> Iterator[tuple[Key, xr.Dataset]]:
    keys = list(zip(data["stream"].values, data["projection"].values, strict=True))
    order = {name: rank for rank, name in enumerate(("", *PROJECTIONS))}
    for key in sorted(set(keys), key=lambda key: order[key[1]]):
        chosen = [i for i, other in enumerate(keys) if other == key]
        yield (str(key[0]), site, str(key[1])), data.isel(layer=chosen)


def _gathered(parts: Mapping[Key, xr.Dataset]) -> xr.Dataset | None:
    """The parts as rows of one panel, or None where their steps differ."""
    first, *others = parts.values()
    names = [name for name, value in first.coords.items() if value.dims == ("step",)]
    if not all(name in o.coords and first[name].equals(o[name]) for o in others for name in names):
        return None
    labels = [
        site if data.sizes["layer"] == 1 else str(layer)
        for (_, site, _), data in parts.items()
        for layer in data["layer"].values
    ]
    joined = xr.concat(
        list(parts.values()),
        dim="layer",
        data_vars="all",
        coords="different",
        compat="equals",
        join="exact",
        combine_attrs="drop",
    )
    return joined.assign_coords(
        block=("layer", np.arange(len(labels))), label=("layer", np.array(labels, dtype=object))
    )
