"""Statistics of one activation tensor: extrema, moments and a float-bit-prefix histogram.

Only what merges is kept, so that a tensor may arrive in pieces and batches may be pooled later.
Work goes by blocks of rows: extra memory is bounded, whatever the size of the tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import TaqError, problem
from taqstore.statistics.bins import Counts, Layout
from taqstore.statistics.channel_histogram import count_blocks
from taqstore.statistics.histogram import add, count
from taqstore.statistics.moments import Moments, finite_moments, merge_moments, moments_of

Array = npt.NDArray[Any]

# float64 elements of one block of rows: 1 MB stays in the cache while it is read four times.
BLOCK = 1 << 17
MANTISSA_BITS = 5


@dataclass(frozen=True)
class Observation(Moments):
    """Statistics of one tensor ``(rows, channel)``.

    NaN and infinite values are counted in `nonfinite` and left out of everything else.

    Parameters
    ----------
    layout
        Bins of `histogram`.
    count
        Rows seen; `finite` equals it in every channel of a sound tensor.
    histogram
        uint32 ``(bin,)``, over all channels; int64 where a count needs it.
    nonfinite
        int64 ``(3,)``: NaN, +Inf, -Inf.
    """

    layout: Layout
    count: int
    histogram: npt.NDArray[np.uint32] | Counts
    nonfinite: Counts

    @property
    def tensor_min(self) -> Array:
        """Smallest finite value of the tensor, ``()``."""
        return np.asarray(np.fmin.reduce(self.min))

    @property
    def tensor_max(self) -> Array:
        """Largest finite value of the tensor, ``()``."""
        return np.asarray(np.fmax.reduce(self.max))

    def variables(self) -> dict[str, Array]:
        """Arrays under the names and dtypes a store holds them in (moments as float32).

        A sum of squares beyond float32 is stored as infinity; counts are uint32 where they fit.
        """
        wide = self.histogram.dtype != np.uint32
        return {
            **self._narrowed(),
            "histogram": self.histogram.astype(np.uint64) if wide else self.histogram,
        }

    def _narrowed(self) -> Mapping[str, Array]:
        """Variables beside the histogram."""
        return _narrow(self, self.count, self.nonfinite)


@dataclass(frozen=True)
class _Row(Observation):
    """One of several tensors: what a store holds of them is made for all of them at once."""

    narrow: Mapping[str, Array]

    def _narrowed(self) -> Mapping[str, Array]:
        return self.narrow


def _narrow(moments: Moments, count: int, nonfinite: Counts) -> dict[str, Array]:
    """Variables of ``(..., channel)`` beside the histogram."""
    with np.errstate(over="ignore"):
        mean, m2 = moments.mean.astype("f4"), moments.m2.astype("f4")
    return {
        "min": moments.min,
        "max": moments.max,
        "count": np.full(mean.shape[:-1], count, np.int64),
        "mean": mean,
        "m2": m2,
        "tensor_min": np.asarray(np.fmin.reduce(moments.min, axis=-1)),
        "tensor_max": np.asarray(np.fmax.reduce(moments.max, axis=-1)),
        "nonfinite": nonfinite.astype(np.uint64),
    }


def observe(
    x: npt.ArrayLike, *, mantissa_bits: int = MANTISSA_BITS, chunk_rows: int | None = None
) -> Observation:
    """Observe one activation tensor.

    Parameters
    ----------
    x
        float16 or float32 ``(..., channel)``; bfloat16 comes widened to float32. The histogram's
        layout has the same dtype.
    mantissa_bits
        Of the histogram.
    chunk_rows
        Rows handled at once; by default as many as make 1 MB in float64.

    Raises
    ------
    TaqError
        The tensor is of another dtype, or has no channel axis.
    """
    accumulator = Accumulator(mantissa_bits=mantissa_bits, chunk_rows=chunk_rows)
    accumulator.update(x)
    return accumulator.result()


def observe_each(
    tensors: Sequence[npt.ArrayLike], *, mantissa_bits: int = MANTISSA_BITS
) -> list[Observation]:
    """Observe every one of many tensors, as `observe` does but for rounding of moments (~1e-15).

    Small ones of one shape are worked on together, which takes a fraction of the time. What comes
    out for a tensor does not depend on the others.

    Raises
    ------
    TaqError
        As `observe`.
    """
    checked = [_checked(x) for x in tensors]
    found: dict[int, Observation] = {}
    alike: dict[tuple[Any, ...], list[int]] = {}
    for index, tensor in enumerate(checked):
        if 0 < tensor.size <= BLOCK:
            alike.setdefault((tensor.shape, tensor.dtype), []).append(index)
    for indices in alike.values():
        together = BLOCK // checked[indices[0]].size
        for start in range(0, len(indices), together):
            some = indices[start : start + together]
            found.update(_observe_stacked({i: checked[i] for i in some}, mantissa_bits))
    for index, tensor in enumerate(checked):
        if index not in found:
            found[index] = observe(tensor, mantissa_bits=mantissa_bits)
    return [found[index] for index in range(len(checked))]


def _observe_stacked(
    tensors: dict[int, Array], mantissa_bits: int
) -> Iterator[tuple[int, Observation]]:
    """Observations of those tensors, all of one shape, that are finite, by one pass over them."""
    stack = np.stack([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors.values()])
    keys, finite = list(tensors), np.isfinite(stack).all(axis=(1, 2))
    if not finite.all():
        keys, stack = [key for key, ok in zip(keys, finite, strict=True) if ok], stack[finite]
    if not keys:
        return
    layout = Layout(stack.dtype.name, mantissa_bits)
    blocks = count_blocks(stack.reshape(len(stack), -1).T, layout)
    histograms = list(chain.from_iterable(blocks))
    moments = finite_moments(stack)
    count, sound = stack.shape[1], np.zeros((len(stack), 3), np.int64)
    narrow = _narrow(moments, count, sound)
    for index, key in enumerate(keys):
        yield (
            key,
            _Row(
                moments.finite[index],
                moments.min[index],
                moments.max[index],
                moments.mean[index],
                moments.m2[index],
                layout=layout,
                count=count,
                histogram=histograms[index],
                nonfinite=sound[index],
                narrow={name: values[index] for name, values in narrow.items()},
            ),
        )


def merge(a: Observation, b: Observation) -> Observation:
    """Observation of the rows of both: exact, but for rounding of the moments (~1e-14).

    Moments by the pairwise update of Chan, Golub and LeVeque (1979).

    Raises
    ------
    TaqError
        The two differ in layout, dtype or number of channels.
    """
    if a.layout != b.layout or a.min.dtype != b.min.dtype or a.min.shape != b.min.shape:
        found = " and ".join(
            f"{o.min.size} channels of {o.min.dtype} with {o.layout.mantissa_bits} mantissa bits"
            for o in (a, b)
        )
        raise TaqError(problem("observations of different tensors do not merge", found=found))
    return Observation(
        **vars(merge_moments(a, b)),
        layout=a.layout,
        count=a.count + b.count,
        histogram=narrowed(add(a.histogram, b.histogram)),
        nonfinite=a.nonfinite + b.nonfinite,
    )


def narrowed(histogram: Counts) -> npt.NDArray[np.uint32] | Counts:
    """Counts as an `Observation` keeps them: half the memory where they fit."""
    return histogram if histogram.max() >= 2**32 else histogram.astype(np.uint32)


class Accumulator:
    """Observes one batch that arrives in pieces ``(..., channel)``; see `observe`."""

    def __init__(
        self, *, mantissa_bits: int = MANTISSA_BITS, chunk_rows: int | None = None
    ) -> None:
        if chunk_rows is not None and chunk_rows < 1:
            raise TaqError(problem("chunk_rows must be positive", found=str(chunk_rows)))
        self._mantissa_bits = mantissa_bits
        self._chunk_rows = chunk_rows
        self._seen: Observation | None = None

    def update(self, x: npt.ArrayLike) -> None:
        """Add the rows of `x`; the tensor itself is not kept.

        Raises
        ------
        TaqError
            `x` is no float16 or float32 tensor, or is unlike the pieces before.
        """
        tensor = _checked(x)
        layout = Layout(tensor.dtype.name, self._mantissa_bits)
        rows = self._chunk_rows or max(1, BLOCK // tensor.shape[-1])
        moments = reduce(merge_moments, map(moments_of, _row_blocks(tensor, rows)))
        histogram, nonfinite = count(tensor, layout)
        piece = Observation(
            **vars(moments),
            layout=layout,
            count=tensor.size // tensor.shape[-1],
            histogram=narrowed(histogram),
            nonfinite=nonfinite,
        )
        self._seen = piece if self._seen is None else merge(self._seen, piece)

    def result(self) -> Observation:
        """Statistics of everything seen so far.

        Raises
        ------
        TaqError
            Nothing was seen.
        """
        if self._seen is None:
            raise TaqError(problem("no tensor was observed", remedy="call update first"))
        return self._seen


def _checked(x: npt.ArrayLike) -> Array:
    tensor = np.asarray(x)
    if tensor.dtype.type not in (np.float16, np.float32):
        what = "an activation tensor must be float16 or float32"
        raise TaqError(problem(what, found=str(tensor.dtype), remedy="widen bfloat16 to float32"))
    if tensor.ndim == 0 or tensor.shape[-1] == 0:
        what = "an activation tensor needs a channel axis"
        raise TaqError(problem(what, found=f"shape {tensor.shape}"))
    return tensor


def _row_blocks(tensor: Array, rows: int) -> Iterator[Array]:
    """Yield blocks ``(rows, channel)``, at least one, without copying all of a strided tensor."""
    # The order of rows does not matter, so axes are put into memory order; those of length 1 go,
    # for they would make every block a single row.
    order = sorted(range(tensor.ndim - 1), key=lambda axis: -abs(tensor.strides[axis]))
    tensor = tensor.transpose(*order, -1)
    lead = tuple(n for n in tensor.shape[:-1] if n != 1)
    tensor = tensor.reshape(*lead, tensor.shape[-1])
    if len(lead) > 1 and not tensor.flags.c_contiguous:
        for part in tensor:
            yield from _row_blocks(part, rows)
        return
    flat = tensor.reshape(-1, tensor.shape[-1])
    for start in range(0, max(1, len(flat)), rows):
        yield flat[start : start + rows]
