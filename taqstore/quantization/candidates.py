"""Kinds of quantizers, and the candidates of a search: step sizes and places of zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taqstore.quantization.quantizer import Quantizer, integer_range
from taqstore.statistics.bins import Floats

Ints = npt.NDArray[np.int64]

OCTAVES = 12  # clip bounds down to 2**-12 of the range are tried
FINER = 4  # each refinement divides the spacing of the candidates by this
FINEST = 256  # step sizes per factor of two at which refinement ends
_PLACES = 16  # intervals between the places of zero first tried


@dataclass(frozen=True)
class Scheme:
    """Kind of quantizer that is searched for.

    Parameters
    ----------
    bits
        2 to 16.
    symmetric
        Zero point 0 and signed integers; otherwise affine with unsigned ones.
    narrow_range
        Leave out the smallest integer (symmetric only).
    """

    bits: int = 8
    symmetric: bool = True
    narrow_range: bool = False

    @property
    def integers(self) -> tuple[int, int]:
        """Smallest and largest integer.

        Raises
        ------
        TaqError
            `bits` is out of range.
        """
        return integer_range(self.bits, signed=self.symmetric, narrow_range=self.narrow_range)

    @property
    def per_octave(self) -> int:
        """Candidate step sizes per factor of two."""
        return 32 if self.symmetric else 4

    def quantizer(self, step_size: npt.ArrayLike, zero_point: npt.ArrayLike) -> Quantizer:
        """Quantizer of these parameters; see `quantization.Quantizer`."""
        qmin, qmax = self.integers
        return Quantizer(np.asarray(step_size), np.asarray(zero_point, np.int64), qmin, qmax)

    def places(self) -> tuple[Ints, int]:
        """Zero points first tried, and the largest gap between them."""
        if self.symmetric:
            return np.zeros(1, np.int64), 0
        levels = (1 << self.bits) - 1
        gap = max(1, (levels + 1) // _PLACES)
        return np.unique(np.append(np.arange(0, levels, gap), levels)), gap

    def covering(self, low: Floats, high: Floats) -> Floats:
        """Step size of the quantizer that just covers [low, high] and 0."""
        qmin, qmax = self.integers
        low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        return np.maximum(-low, high) / qmax if self.symmetric else (high - low) / (qmax - qmin)


@dataclass(frozen=True)
class Grid:
    """Candidates: step sizes ``2**(octave / per_octave)``, each with every place of zero.

    Parameters
    ----------
    octave
        Ascending integers.
    per_octave
        How many of them make a factor of two.
    place
        Zero points.
    """

    octave: Ints
    per_octave: int
    place: Ints

    @property
    def step_size(self) -> Floats:
        """float64 ``(candidate,)``, largest first."""
        return np.repeat(np.exp2(self.octave[::-1] / self.per_octave), len(self.place))

    @property
    def zero_point(self) -> Ints:
        """int64 ``(candidate,)``."""
        return np.tile(self.place, len(self.octave))

    def quantizers(self, scheme: Scheme) -> Quantizer:
        """All candidates."""
        return scheme.quantizer(self.step_size, self.zero_point)


def refinement(gap: int) -> tuple[Ints, Ints, int]:
    """Candidates around one, as offsets: finer octaves, places of zero, and the gap of these.

    Octaves count steps ``1 / FINER`` as wide as those refined; step sizes fall, as in a `Grid`.
    """
    finer = max(1, gap // FINER) if gap else 0
    places = np.arange(-gap, gap + 1, finer or 1)
    octaves = np.arange(FINER, -FINER - 1, -1)
    return np.repeat(octaves, len(places)), np.tile(places, len(octaves)), finer


def window(step: Floats, per_octave: int) -> tuple[Ints, Ints]:
    """Octaves (first, last) worth trying below covering step sizes, each ``(row,)``."""
    last = np.ceil(np.log2(step) * per_octave).astype(np.int64)
    return last - OCTAVES * per_octave, last
