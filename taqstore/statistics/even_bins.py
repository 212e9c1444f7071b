"""Counts of float-bit-prefix bins laid over bins with other edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from taqstore.statistics.bins import Counts, Layout


def over_edges(
    counts: npt.ArrayLike, layout: Layout, edges: npt.ArrayLike
) -> tuple[Counts, Counts]:
    """Counts ``(..., bin)`` of a layout as counts ``(..., len(edges) - 1)`` over ascending edges.

    As `numpy.histogram` counts: a bin is ``[left, right)``, the last one holds its right edge, and
    what lies outside is dropped. Exact for every bin whose values all lie between two edges; the
    others, which an edge cuts, are shared out evenly between their smallest and largest value.

    Returns
    -------
    The counts, and ``(...)`` how many values were in bins that an edge cuts.
    """
    given = layout.checked(counts)
    low, high = layout.representable()
    cuts = np.array(edges, np.float64)
    cuts[-1] = np.nextafter(cuts[-1], np.inf)
    # The first bin that is not wholly below an edge, and the share of it that is.
    at = np.minimum(np.searchsorted(high, cuts, "left"), layout.bins - 1)
    width = (high - low)[at]
    part = np.divide(cuts - low[at], width, out=np.zeros(len(cuts)), where=width > 0)
    share = np.where(cuts > high[at], 1.0, np.clip(part, 0.0, 1.0))
    below = np.concatenate(
        [np.zeros((*given.shape[:-1], 1), np.int64), given.cumsum(axis=-1)], axis=-1
    )
    found = np.rint(below[..., at] + given[..., at] * share).astype(np.int64)
    cut = np.unique(at[(low[at] < cuts) & (cuts <= high[at])])
    return np.diff(found, axis=-1), given[..., cut].sum(axis=-1)
