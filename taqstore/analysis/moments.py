"""What second moments of a linear's input say of it: energy, rank, correlation of channels."""

from __future__ import annotations

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import Array, finish, over, require
from taqstore.analysis.table import of_row

_NAME = "moments"
_MATRIX = ("channel_block", "channel_row", "channel_column")
# float32 keeps a second moment to 6e-8: what is left of a variance below this is rounding.
_STILL = 1e-5

TOP_FRACTION = 0.01


@of_row("moments")
def moments(dataset: xr.Dataset, *, top_fraction: float = TOP_FRACTION) -> xr.Dataset:
    """Energy, effective rank, share of the largest directions and correlation of channels.

    All batches are summed; groups of steps are kept apart. Where second moments are of blocks,
    directions and pairs of channels lie inside blocks, and the rank is an upper bound of that of
    the whole matrix. Eigenvalues of a full one of 6144 channels take half a minute.

    Parameters
    ----------
    dataset
        A group `second_moments/<site>`.
    top_fraction
        Share of the channels that is how many of the largest directions count, one at least.

    Returns
    -------
    Dataset
        (step_group, layer): `energy`, mean over positions of the sum of x^2 over channels;
        `effective_rank`, ``exp(-sum p log p)`` with p the eigenvalues of the second moment over
        their sum (Roy and Vetterli, EUSIPCO 2007); `participation_ratio`,
        ``(sum of eigenvalues)^2 / sum of their squares``; `top_share`, the share of the energy
        in the largest directions; `mean_correlation`, `max_correlation` of different channels,
        absolute; channels that hardly move beside their mean are left out. NaN where nothing was
        seen.

    Raises
    ------
    MissingError
        The dataset has no second moments.
    """
    require(dataset, ("second_moment", "channel_sum", "count"), analysis=_NAME)
    summed = {
        name: _over_batches(dataset[name]) for name in ("second_moment", "channel_sum", "count")
    }
    matrix, sums, count = (summed[name] for name in summed)
    channels = dataset.sizes["channel"]
    top = max(1, int(top_fraction * channels))
    rank = over(
        _spectrum, matrix, core=(_MATRIX,), out=((), (), ()), dtypes=(np.float64,) * 3, top=top
    )
    correlation = over(
        _correlation,
        matrix,
        sums,
        count,
        core=(_MATRIX, ("channel",), ()),
        out=((), ()),
        dtypes=(np.float64,) * 2,
    )
    energy = over(_trace, matrix, core=(_MATRIX,)) / count.where(count > 0)
    found = {
        "energy": energy,
        "effective_rank": rank[0],
        "participation_ratio": rank[1],
        "top_share": rank[2],
        "mean_correlation": correlation[0],
        "max_correlation": correlation[1],
    }
    return finish(xr.Dataset(found), dataset, _NAME, top_fraction=top_fraction)


def _over_batches(array: xr.DataArray) -> xr.DataArray:
    wide = array.astype(np.float64)
    return wide.sum("batch", skipna=False) if "batch" in array.dims else wide


def _trace(matrix: Array) -> Array:
    """Of ``(..., channel_block, n, n)``."""
    total: Array = np.einsum("...bii->...", matrix)
    return total


def _spectrum(matrix: Array, *, top: int) -> tuple[Array, Array, Array]:
    """Effective rank, participation ratio and share of the `top` largest of the eigenvalues."""
    lead = matrix.shape[:-3]
    found = np.full((3, *lead), np.nan)
    for place in np.ndindex(lead):
        one = matrix[place]
        if not np.isfinite(one).all() or not np.einsum("bii->", one) > 0:
            continue
        values = np.sort(np.maximum(np.linalg.eigvalsh(one), 0).ravel())[::-1]
        share = values / values.sum()
        some = share[share > 0]
        found[(slice(None), *place)] = (
            np.exp(-(some * np.log(some)).sum()),
            1 / np.square(share).sum(),
            share[:top].sum(),
        )
    return found[0], found[1], found[2]


def _correlation(matrix: Array, sums: Array, count: Array) -> tuple[Array, Array]:
    """Mean and largest absolute correlation of pairs of channels of a block."""
    lead = matrix.shape[:-3]
    found = np.full((2, *lead), np.nan)
    for place in np.ndindex(lead):
        if count[place] > 0 and np.isfinite(matrix[place]).all():
            found[(slice(None), *place)] = _of_blocks(
                matrix[place], sums[place], float(count[place])
            )
    return found[0], found[1]


def _of_blocks(blocks: Array, sums: Array, count: float) -> tuple[float, float]:
    number, size, _ = blocks.shape
    mean = np.zeros(number * size)
    mean[: len(sums)] = sums / count
    mean = mean.reshape(number, size)
    total, pairs, largest = 0.0, 0, np.nan
    for block, centre in zip(blocks, mean, strict=True):
        second = np.diagonal(block) / count
        variance = second - centre**2
        moving = variance > _STILL * second
        if moving.sum() < 2:
            continue
        root = np.sqrt(variance[moving])
        covariance = block[np.ix_(moving, moving)] / count
        covariance -= np.outer(centre[moving], centre[moving])
        absolute = np.minimum(np.abs(covariance) / np.outer(root, root), 1)
        np.fill_diagonal(absolute, 0)
        total, pairs = total + float(absolute.sum()), pairs + moving.sum() * (moving.sum() - 1)
        largest = np.fmax(largest, absolute.max())
    return (total / pairs if pairs else np.nan), float(largest)
