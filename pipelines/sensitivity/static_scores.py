"""Static scores of targets: what is known of a quantized weight without running the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taqstore.kinds.second_moments import Moments2, diagonal_of, moments_of
from taqstore.kinds.sensitivity import STATIC
from taqstore.names import ACTIVATIONS, SECOND_MOMENTS
from taqstore.store.reader import Store

from ..models.inputs import Reader

Float64 = NDArray[np.float64]

_SUMMED = (
    *("weight_power", "weight_error", "imatrix_error", "imatrix_power"),
    *("moment_error", "output_power"),
)


@dataclass
class Statistics:
    """What a store knows of the inputs of linears, of one tensor at a time."""

    store: Store
    _at: tuple[str, str] | None = None
    _moments: Moments2 | None = None
    _squares: Float64 | None = None

    def of(self, reader: Reader) -> tuple[Moments2 | None, Float64 | None]:
        """Second moment, and mean square of each channel (in,); None where it is not known."""
        read = reader.name.input
        at = read.layer, read.site
        if at != self._at:
            self._at = at
            self._moments = moments_of(self.store, *at) if self._has(SECOND_MOMENTS, at) else None
            self._squares = self._mean_squares(at)
        return self._moments, self._squares

    def _has(self, kind: str, at: tuple[str, str]) -> bool:
        path = f"{kind}/{at[1]}"
        return path in self.store and bool(self.store.mask(path).any())

    def _mean_squares(self, at: tuple[str, str]) -> Float64 | None:
        sums = diagonal_of(self.store, *at) if self._has(ACTIVATIONS, at) else None
        if sums is not None:
            one = self.store[f"{ACTIVATIONS}/{at[1]}"].sel(layer=at[0])
            return sums / float(one["count"].sum())
        moments = self._moments
        return None if moments is None else moments.diagonal() / moments.count


def scores_of(
    parts: Iterable[tuple[Reader, NDArray[np.float32]]], statistics: Statistics
) -> dict[str, float]:
    """Static scores of a target; see `taqstore.kinds.sensitivity.STATIC`.

    Parameters
    ----------
    parts
        Its linears with their weights quantized, float32 ``(out, in)``, one at a time.
    """
    each = [(reader.shape, _linear(reader, quantized, statistics)) for reader, quantized in parts]
    sizes = np.array([out * into for (out, into), _ in each], np.float64)
    found = {name: float(sum(one[name] for _, one in each)) for name in _SUMMED}
    found["weight_absmax"] = max(one["weight_absmax"] for _, one in each)
    kurtosis = np.array([one["weight_kurtosis"] for _, one in each])
    found["weight_kurtosis"] = float(sizes @ kurtosis / sizes.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(found["weight_power"], found["weight_error"])
        found["weight_sqnr"] = float(10 * np.log10(ratio))
    return {name: found[name] for name in STATIC}


def _linear(
    reader: Reader, quantized: NDArray[np.float32], statistics: Statistics
) -> dict[str, float]:
    weight = reader.matrix().astype(np.float64)
    change = quantized.astype(np.float64) - weight
    moments, squares = statistics.of(reader)
    centred = weight - weight.mean()
    variance = float(np.mean(centred**2))
    nothing = float("nan")
    return {
        "weight_absmax": float(np.abs(weight).max()),
        "weight_kurtosis": float(np.mean(centred**4) / variance**2) if variance else nothing,
        "weight_power": float((weight**2).sum()),
        "weight_error": float((change**2).sum()),
        "imatrix_error": nothing if squares is None else float(((change**2) @ squares).sum()),
        "imatrix_power": nothing if squares is None else float(((weight**2) @ squares).sum()),
        "moment_error": nothing if moments is None else output_power(change, moments),
        "output_power": nothing if moments is None else output_power(weight, moments),
    }


def output_power(weight: Float64, moments: Moments2) -> float:
    """Mean over positions of ``|W x|^2``: the trace of W H W^T by the count, W ``(out, in)``."""
    total, size = 0.0, moments.block_size
    for number, block in enumerate(moments.blocks):
        part = weight[:, number * size : (number + 1) * size]
        inside = block[: part.shape[1], : part.shape[1]]
        total += float(np.einsum("oi,oi->", part @ inside, part))
    return total / moments.count
