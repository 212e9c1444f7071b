"""How far two histograms are apart: Jensen-Shannon divergence and 1-Wasserstein distance.

Values are taken as evenly spread over their bin, so a histogram is a piecewise constant density.
Both measures are then exact on the union of the two sets of edges, whatever edges these are.
"""

from __future__ import annotations

import numpy as np

from taqstore.analysis.shared.inputs import Array


def histogram_distances(
    first: Array, first_edges: Array, second: Array, second_edges: Array
) -> tuple[Array, Array]:
    """Divergence and distance of the distributions that two sets of histograms describe.

    Jensen-Shannon (Lin, IEEE Trans. Inf. Theory 37, 1991): ``H(m) - (H(p) + H(q)) / 2`` with
    ``m = (p + q) / 2``, in bits: 0 for equal, 1 for disjoint distributions. 1-Wasserstein: the
    integral of ``|P(x) - Q(x)|`` over x with P, Q the cumulative distributions.

    Parameters
    ----------
    first, second
        Counts ``(..., bin)``; leading axes broadcast.
    first_edges, second_edges
        ``(..., edge)`` each, or ``(edge,)`` where all rows share them; ascending.

    Returns
    -------
    divergence, distance
        float64 ``(...)``: bits, and the unit of the values. NaN where either side counted nothing.
    """
    if first_edges.ndim == second_edges.ndim == 1 and np.array_equal(first_edges, second_edges):
        left, right = _cumulative(first), _cumulative(second)
        return _divergence(left, right), _distance(left, right, np.diff(first_edges))
    lead = np.broadcast_shapes(first.shape[:-1], second.shape[:-1])
    rows = int(np.prod(lead))
    sides = [
        (_rows(_cumulative(counts), lead, rows), _rows(edges, lead, rows))
        for counts, edges in ((first, first_edges), (second, second_edges))
    ]
    union = np.sort(np.concatenate([edges for _, edges in sides], axis=1), axis=1)
    left, right = (_interpolated(union, edges, values) for values, edges in sides)
    divergence, distance = _divergence(left, right), _distance(left, right, np.diff(union))
    return divergence.reshape(lead), distance.reshape(lead)


def _rows(values: Array, lead: tuple[int, ...], rows: int) -> Array:
    return np.broadcast_to(values, (*lead, values.shape[-1])).reshape(rows, -1)


def _cumulative(counts: Array) -> Array:
    """Cumulative distribution at every edge ``(..., edge)``; NaN where nothing was counted."""
    through = np.cumsum(counts, axis=-1, dtype=np.float64)
    total = through[..., -1:]
    share = np.full(through.shape, np.nan)
    np.divide(through, total, out=share, where=total > 0)
    return np.concatenate([0.0 * share[..., :1], share], axis=-1)


def _interpolated(x: Array, edges: Array, values: Array) -> Array:
    """`values` known at `edges` (row, edge), linear between them, at ascending x (row, point)."""
    points = np.concatenate([edges, x], axis=1)
    # Stable: an edge comes before the equal points, which so count it as passed.
    order = np.argsort(points, axis=1, kind="stable")
    passed = np.cumsum(order < edges.shape[1], axis=1)
    is_point = order >= edges.shape[1]
    index = passed[is_point].reshape(x.shape) - 1
    below = np.clip(index, 0, edges.shape[1] - 2)
    low, high = (np.take_along_axis(edges, below + i, axis=1) for i in (0, 1))
    start, end = (np.take_along_axis(values, below + i, axis=1) for i in (0, 1))
    width = high - low
    share = np.divide(x - low, width, out=np.ones_like(x), where=width > 0)
    return np.asarray(start + np.clip(share, 0.0, 1.0) * (end - start))


def _divergence(left: Array, right: Array) -> Array:
    p, q = np.diff(left), np.diff(right)
    middle = (p + q) / 2
    return np.asarray((_information(p, middle) + _information(q, middle)) / 2)


def _information(p: Array, middle: Array) -> Array:
    """Kullback-Leibler divergence of `p` from `middle` in bits; ``0 log 0`` is 0."""
    # A tiny p may halve to nothing beside another nothing: both are no information.
    some = (p > 0) & (middle > 0)
    ratio = np.divide(p, middle, out=np.ones(middle.shape), where=some)
    return np.asarray((p * np.log2(ratio)).sum(axis=-1))


def _distance(left: Array, right: Array, width: Array) -> Array:
    gap = left - right
    start, end = abs(gap[..., :-1]), abs(gap[..., 1:])
    crosses = gap[..., :-1] * gap[..., 1:] < 0
    total = start + end
    # A gap that changes sign inside an interval is two triangles, else a trapezium.
    triangles = np.divide(start**2 + end**2, total, out=np.zeros(total.shape), where=total > 0)
    height = np.where(crosses, triangles, np.where(np.isnan(total), np.nan, total))
    return np.asarray((height / 2 * width).sum(axis=-1))
