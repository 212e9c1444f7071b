"""What the formats of other tools share: static statistics of every linear, under its full name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from taqstore.export.documents.linears import find_source, linears_of
from taqstore.kinds.statistics_sources import Use
from taqstore.query.sites import Groups, site_groups


def sites_of(store: Groups, source: str | None, use: Use = "extrema") -> dict[str, xr.Dataset]:
    """Groups of a source by site; by default of the one that is preferred for the use.

    Raises
    ------
    MissingError
        The store has none.
    """
    return site_groups(store, find_source(store, source, use))


def by_linear(
    site: str, dataset: xr.Dataset, arrays: Sequence[xr.DataArray]
) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Yield every linear's full name and its rows of `arrays` (layer[, projection], ...).

    q, k and v get the same rows where the arrays do not tell them apart.
    """
    loaded = xr.Dataset({str(i): array for i, array in enumerate(arrays)}).compute()
    for row, layer in enumerate(dataset["layer"].values):
        for number, name in enumerate(linears_of(str(layer), site, dataset)):
            yield name, tuple(_row(loaded[str(i)], row, number) for i in range(len(arrays)))


def _row(array: xr.DataArray, layer: int, projection: int) -> np.ndarray:
    place: dict[str, Any] = {"layer": layer, "projection": projection}
    return np.asarray(array.isel({d: i for d, i in place.items() if d in array.dims}).values)
