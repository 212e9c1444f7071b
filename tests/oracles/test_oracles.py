"""Rules against the tools they come from, run live where torch and onnxruntime are installed.

The frozen values elsewhere need neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from support import oracle
from support.oracle import group
from taqstore.analysis import scales
from taqstore.quantization.entropy import entropy_range
from taqstore.quantization.quantizer import Quantizer
from taqstore.statistics.bins import Layout

torch = pytest.importorskip("torch")
observers = pytest.importorskip("torch.ao.quantization.observer")
calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TENSORS = oracle.tensors()
COARSE = Layout("float32", 5)


def seen(observer: Any, x: np.ndarray) -> Any:
    for batch in x:
        observer(torch.from_numpy(batch.copy()))
    return observer


@pytest.mark.parametrize("x", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("clip", ["minmax", "ema"])
def test_torch_observers(x: np.ndarray, clip: str) -> None:
    """Extrema to the last bit; step sizes as float32 has them, zero points equal."""
    if clip == "ema":
        observer = observers.MovingAverageMinMaxObserver(averaging_constant=0.05)
    else:
        observer = observers.MinMaxObserver()
    seen(observer, x)
    got = scales(group(x), clip=clip, momentum=0.95, symmetric=False)
    assert got["lower"].item() == observer.min_val.item()
    assert got["upper"].item() == observer.max_val.item()
    step, zero = observer.calculate_qparams()
    assert got["step_size"].item() == pytest.approx(step.item(), rel=1e-6)
    assert got["zero_point"].item() == zero.item()


@pytest.mark.parametrize("x", TENSORS.values(), ids=TENSORS)
def test_torch_per_channel_observer(x: np.ndarray) -> None:
    observer = observers.MovingAveragePerChannelMinMaxObserver(averaging_constant=0.05, ch_axis=1)
    seen(observer, x)
    got = scales(group(x), clip="ema", momentum=0.95, symmetric=False, per="channel")
    np.testing.assert_array_equal(got["lower"].values.ravel(), observer.min_val.numpy())
    np.testing.assert_array_equal(got["upper"].values.ravel(), observer.max_val.numpy())


@pytest.mark.parametrize("x", TENSORS.values(), ids=TENSORS)
def test_never_worse_than_torchs_histogram_search(x: np.ndarray) -> None:
    observer = seen(observers.HistogramObserver(), x)
    step, zero = observer.calculate_qparams()
    theirs = Quantizer(np.float64(step.item()), np.asarray(zero.item()), 0, 255)
    got = scales(group(x, COARSE), clip="mse", symmetric=False)
    ours = Quantizer(got["step_size"].values, got["zero_point"].values, 0, 255)
    wide = x.astype(np.float64).ravel()
    errors = [np.square(wide - q.fake_quantize(wide)).mean() for q in (ours, theirs)]
    assert errors[0] <= 1.005 * errors[1]


def collector(method: str) -> Any:
    return calibrate.HistogramCollector(method, True, 2048, 128, 99.9, None)


@pytest.mark.parametrize("name", ["tensor", "small"])
def test_onnxruntime_entropy(name: str) -> None:
    """Not on the positive tensor, where thresholds tie but for float32 rounding in onnxruntime."""
    x = TENSORS[name]
    theirs = collector("entropy")
    theirs.collect({"t": [x.ravel()]})
    low, high = (float(end) for end in theirs.compute_collection_result()["t"][:2])
    absmax = float(np.abs(x).max())
    counts, _ = np.histogram(x, 2048, range=(-absmax, absmax))
    found = entropy_range(counts[None], np.array([absmax]))
    # Their range ends at the extrema.
    inside = [max(found[0].item(), float(x.min())), min(found[1].item(), float(x.max()))]
    assert inside == pytest.approx([low, high], rel=1e-6)


@pytest.mark.parametrize("name", ["tensor", "positive"])
def test_onnxruntime_percentile(name: str) -> None:
    """Within a bin of each: theirs is a 2,048th of the range wide, ours 2^-8 of the value.

    Not on the small tensor, in whose tail single values lie bins apart.
    """
    x = TENSORS[name]
    theirs = collector("percentile")
    theirs.collect({"t": [x.ravel()]})
    high = float(theirs.compute_collection_result()["t"][1])
    got = scales(group(x), clip="percentile", percentile=99.9)["alpha"].item()
    assert got == pytest.approx(high, rel=2**-8, abs=4 * float(np.abs(x).max()) / 2048)
