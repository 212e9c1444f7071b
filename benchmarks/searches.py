"""Searches of other tools, a tensor at a time, on its histogram; absent where not installed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.quantization.quantizer import Quantizer
from taqstore.quantization.search import Scheme, best_quantizer
from taqstore.quantization.spread import Spread

from .observed import LAYOUT, sites
from .peers import installed

SAMPLED = 12  # tensors that the peers are timed on, spread over layers and steps
_BINS = 2048


@dataclass(frozen=True)
class Tensor:
    """A tensor of the store: bit histogram, extrema, and the linear histogram others work on."""

    name: str
    counts: NDArray[np.int64]
    low: float
    high: float

    def searched(self, scheme: Scheme) -> Quantizer:
        """Our quantizer of least error."""
        known = np.array([self.low, self.high])
        return best_quantizer(self.counts, Spread.of(LAYOUT), scheme, known=known)

    def linear(self, low: float, high: float) -> tuple[NDArray[Any], NDArray[Any]]:
        """Counts and edges of even bins between two ends."""
        edges = np.linspace(low, high, _BINS + 1)
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return np.diff(np.interp(edges, LAYOUT.edges(), below)), edges


def sample(store: Path) -> list[Tensor]:
    """Some tensors (step, input), all batches together."""
    groups = sites(store)
    chosen = []
    for number in range(SAMPLED):
        site, group = list(groups.items())[number % len(groups)]
        step, layer = (number * 7 % group.sizes["step"], number * 5 % group.sizes["layer"])
        one = group.isel(step=step, layer=layer)
        ends = float(one["min"].min()), float(one["max"].max())
        counts = one["histogram"].values.astype(np.int64).sum(axis=0)
        chosen.append(Tensor(f"{step} {layer} {site}", counts, *ends))
    return chosen


def torch_search(tensors: list[Tensor], widths: tuple[int, ...]) -> Callable[[], list[Any]]:
    """`HistogramObserver`'s search for the range of least squared error."""
    import torch
    from torch.ao.quantization.observer import HistogramObserver

    observers = []
    for tensor in tensors:
        observer: Any = HistogramObserver(bins=_BINS)
        counts, _ = tensor.linear(tensor.low, tensor.high)
        observer.histogram = torch.from_numpy(counts.astype(np.float32))
        observer.min_val, observer.max_val = (
            torch.tensor(end) for end in (tensor.low, tensor.high)
        )
        observers.append(observer)

    def run() -> list[Any]:
        found = []
        for observer in observers:
            for bits in widths:
                observer.dst_nbins = 2**bits
                found.append(tuple(float(e) for e in observer._non_linear_param_search()))
        return found

    return run


def onnxruntime_search(tensors: list[Tensor], widths: tuple[int, ...]) -> Callable[[], list[Any]]:
    """The entropy calibrator's search for a threshold: onnxruntime searches for no least error."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    collectors = []
    for tensor in tensors:
        bound = max(-tensor.low, tensor.high)
        counts, edges = tensor.linear(-bound, bound)
        for bits in widths:
            collector: Any = HistogramCollector("entropy", True, _BINS, 2 ** (bits - 1), 99.9, None)
            held = np.rint(counts).astype(np.int64)
            ends = (np.float32(tensor.low), np.float32(tensor.high), np.float32(bound))
            collector.histogram_dict = {tensor.name: (held, edges.astype(np.float32), *ends)}
            collectors.append(collector)

    def run() -> list[Any]:
        with contextlib.redirect_stdout(io.StringIO()):  # it reports on every tensor
            return [collector.compute_collection_result() for collector in collectors]

    return run


PEERS: dict[str, tuple[str, Callable[..., Callable[[], list[Any]]]]] = {
    "torch HistogramObserver": ("torch", torch_search),
    "onnxruntime entropy": ("onnxruntime", onnxruntime_search),
}


def present() -> dict[str, Callable[..., Callable[[], list[Any]]]]:
    """Peers that can be measured here."""
    return {name: make for name, (package, make) in PEERS.items() if installed(package)}
