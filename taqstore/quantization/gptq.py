"""GPTQ: weights rounded input by input, each error made good by the inputs that follow.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(arXiv 2210.17323), in natural order of the inputs. It is written here as Chee et al., "QuIP"
(arXiv 2307.13304), theorem 6, have it, which gives the same weights without an inverse: with
``H = U D U^T``, U unit upper triangular, ``q_j = nearest(w_j + sum_{i<j} (w_i - q_i) U_ij)``. H is
the sum of x x^T over inputs x of the linear, plus `damping` of its mean diagonal on the diagonal.

What is left, ``sum (x (w - q))^2`` over these inputs, is ``(w - q) H (w - q)^T``. A diagonal H
spreads nothing: GPTQ with it is rounding to nearest, and all that it can say is which clip bounds
are best (`weight_steps` with an `importance`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from taqstore.errors import MisuseError, TaqError, problem
from taqstore.quantization.defaults import DAMPING

Floats = npt.NDArray[np.float64]
Columns = npt.NDArray[np.int64]
Nearest = Callable[[Floats, Columns], tuple[npt.NDArray[Any], npt.NDArray[Any]]]
"""``nearest(values, columns)`` -> codes, weights: the points of a grid nearest to `values` ``(out,
column)``, each column for itself. `IntegerGrid.nearest` is one."""

SPAN = 64
"""Inputs that are rounded before their errors are carried on to all others at once."""

# Where a factor of H does not exist: damping grows tenfold from the smallest to the largest.
_LEAST_GROWN, _MOST = 1e-4, 1.0


@dataclass(frozen=True)
class Gptq:
    """A weight rounded.

    Parameters
    ----------
    codes
        ``(out, in)``, as the grid gave them.
    weights
        ``(out, in)``: what the codes stand for.
    output_error
        float64 ``(out,)``: ``(w - q) H (w - q)^T``, H without damping.
    nearest_error
        float64 ``(out,)``: the same of rounding to nearest on the grid; never less.
    nearest_rows
        Outputs whose weights are those of rounding to nearest, because these left less.
    """

    codes: npt.NDArray[Any]
    weights: npt.NDArray[Any]
    output_error: Floats
    nearest_error: Floats
    nearest_rows: int


@dataclass(frozen=True)
class Prepared:
    """A second moment ready for `gptq`, from `prepare`; linears that read one tensor share it.

    Parameters
    ----------
    blocks
        float64 ``(block, n, n)``, without damping.
    feedback
        U of each block, ``(block, n, n)``; None where there is nothing to spread.
    damping
        Share of the mean diagonal that was added: what was asked for, or, where no factor existed
        with it, the first tenfold of it that gave one.
    """

    blocks: Floats
    feedback: Floats | None
    damping: float

    def error(self, difference: npt.ArrayLike) -> Floats:
        """``d H d^T`` of each output ``(out,)``, d being the difference of two weights.

        Raises
        ------
        TaqError
            The second moment is of another number of inputs.
        """
        rows = np.asarray(difference, np.float64)
        self.check(rows.shape[1])
        count, size, _ = self.blocks.shape
        if size == 1:
            return np.asarray(np.square(rows) @ self.blocks.ravel())
        total = np.zeros(len(rows))
        for block in range(count):
            part = rows[:, block * size : (block + 1) * size]
            moment = self.blocks[block, : part.shape[1], : part.shape[1]]
            total += np.einsum("oi,oi->o", part @ moment, part)
        return total

    def check(self, inputs: int) -> None:
        """Refuse a linear of another number of inputs.

        Raises
        ------
        TaqError
            It does not fit.
        """
        count, size, _ = self.blocks.shape
        if count != -(-inputs // size):
            what = f"{count} blocks of {size} inputs are no second moment of {inputs} inputs"
            raise TaqError(problem(what))


def prepare(second_moment: npt.ArrayLike, *, damping: float = DAMPING) -> Prepared:
    """Factor a second moment.

    Sums of float32 may be short of positive definite, and so is what few inputs leave: where there
    is no factor with `damping`, it grows tenfold, for that block.

    Parameters
    ----------
    second_moment
        Sum of x x^T: ``(in, in)``; or its blocks of neighbouring inputs ``(block, n, n)``, all
        outside of them 0, the last one filled up with zeros; or its diagonal ``(in,)``.
    damping
        0 or more: share of the mean diagonal, over inputs that were not always 0, that is added.

    Raises
    ------
    TaqError
        The second moment has another shape, is not finite, or is not positive even with all of its
        mean diagonal.
    """
    if not 0 <= damping < np.inf:
        raise MisuseError(problem("damping is 0 or more", found=str(damping)))
    moment = np.asarray(second_moment, np.float64)
    if moment.ndim < 3:
        moment = moment[:, None, None] if moment.ndim == 1 else moment[None]
    if moment.ndim != 3 or moment.shape[1] != moment.shape[2] or not moment.size:
        what, remedy = (
            f"a second moment of shape {moment.shape}",
            "(in, in), (block, n, n) or (in,)",
        )
        raise TaqError(problem(what, remedy=remedy))
    diagonal = np.einsum("bii->bi", moment)
    if not np.isfinite(moment).all() or (diagonal < 0).any():
        raise TaqError(problem("a second moment must be finite, and its diagonal 0 or more"))
    if moment.shape[1] == 1 or not diagonal.any():
        return Prepared(moment, None, damping)
    live = diagonal > 0
    mean, used = float(diagonal[live].mean()), damping
    feedback = np.empty_like(moment)
    for block, given in enumerate(moment):
        factor, needed = _factor(given, live[block], mean, damping)
        np.divide(factor, np.diagonal(factor), out=feedback[block])
        used = max(used, needed)
    return Prepared(moment, feedback, used)


def gptq(
    weight: npt.ArrayLike,
    second_moment: npt.ArrayLike | Prepared,
    nearest: Nearest,
    *,
    damping: float = DAMPING,
) -> Gptq:
    """Round a weight to a grid so that outputs change least for inputs of this second moment.

    An input that was always 0 is rounded to nearest and spreads no error. No output is left with
    more error than rounding to nearest leaves: where GPTQ, which is greedy, would, that is kept.

    Parameters
    ----------
    weight
        ``(out, in)``.
    second_moment, damping
        As of `prepare`, or what that gave.
    nearest
        The grid. It is asked about all inputs at once, for rounding to nearest, and about one of
        each block.

    Raises
    ------
    TaqError
        As of `prepare`; sizes do not fit, or a weight is not finite.
    """
    given = np.asarray(weight, np.float64)
    if not isinstance(second_moment, Prepared):
        second_moment = prepare(second_moment, damping=damping)
    second_moment.check(given.shape[1])
    if not np.isfinite(given).all():
        raise TaqError(problem("weights that are not finite have no nearest"))
    codes, weights = nearest(given, np.arange(given.shape[1]))
    plain = second_moment.error(given - weights)
    if second_moment.feedback is None:
        return Gptq(codes, weights, plain, plain, 0)
    found, its = _rounded(given, second_moment.feedback, nearest)
    error = second_moment.error(given - its)
    better = (error <= plain)[:, None]
    return Gptq(
        np.where(better, found, codes),
        np.where(better, its, weights),
        np.minimum(error, plain),
        plain,
        int((~better).sum()),
    )


def _factor(
    moment: Floats, live: npt.NDArray[np.bool_], mean: float, damping: float
) -> tuple[Floats, float]:
    """R, upper triangular, with ``H = R R^T``, and the damping it took."""
    held = np.where(live[:, None] & live[None, :], moment, 0.0)
    while True:
        # An input that was always 0: any positive number keeps it apart.
        np.fill_diagonal(held, np.where(live, np.diagonal(moment) + damping * mean, mean))
        try:
            # A Cholesky factor from the last input to the first.
            return np.linalg.cholesky(held[::-1, ::-1])[::-1, ::-1], damping
        except np.linalg.LinAlgError:
            if damping >= _MOST:
                what = f"a second moment is not positive, with {damping:g} of its mean diagonal"
                raise TaqError(problem(what, remedy="collect it again")) from None
            damping = min(_MOST, max(10 * damping, _LEAST_GROWN))


def _rounded(
    given: Floats, feedback: Floats, nearest: Nearest
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Codes and weights ``(out, in)``: column by column of a block, of all blocks at once."""
    (outputs, inputs), (count, size, _) = given.shape, feedback.shape
    codes = weights = np.empty((0, 0))
    error = np.zeros((count, size, outputs))
    for start in range(0, size, SPAN):
        span = slice(start, min(start + SPAN, size))
        carried = feedback[:, :start, span].swapaxes(1, 2) @ error[:, :start]
        for column in range(span.start, span.stop):
            columns = np.arange(column, inputs, size)
            here = feedback[: len(columns), None, start:column, column]
            spread = (here @ error[: len(columns), start:column])[:, 0]
            wanted = given[:, columns] + (spread + carried[: len(columns), column - start]).T
            found, its = nearest(wanted, columns)
            if not codes.size:
                codes = np.empty((inputs, outputs), found.dtype)
                weights = np.empty((inputs, outputs), its.dtype)
            codes[columns], weights[columns] = found.T, its.T
            error[: len(columns), column] = (given[:, columns] - its).T
    return codes.T, weights.T
