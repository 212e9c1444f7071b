"""Passes over a block's inputs and outputs in random minibatches, as block reconstruction asks."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .inputs import Inputs
from .measure import Contender, Run
from .minibatches import BATCH, RAW, Samples, raw_files, raw_name
from .question import Question
from .rows import Target

BLOCK = 1
PASSES = 8
Answer = tuple[NDArray[Any], NDArray[Any]]


def contenders(inputs: Inputs) -> list[Contender]:
    """Input and output (sample, row, token, channel) of the last batch; all are in new memory."""
    samples = Samples(inputs)
    return [
        Contender("iter_batches", lambda: _ours(samples, prefetch=2), ours=True),
        Contender("iter_batches, no prefetch", lambda: _ours(samples, prefetch=0), ours=True),
        Contender(RAW, lambda: _raw(samples)),
    ]


def _size(samples: Samples) -> tuple[int, int]:
    """Samples of a batch, and batches of all passes."""
    size = min(BATCH, len(samples.names))
    return size, PASSES * len(samples.names) // size


def _ours(samples: Samples, *, prefetch: int) -> Run:
    from taqstore.kinds.minibatches import iter_batches

    store = samples.inputs.store("blocks")
    size, count = _size(samples)

    def run(call: int) -> Answer:
        batches = iter_batches(
            store, f"mm{BLOCK}", batch_size=size, seed=call, prefetch=prefetch, streams=["img"]
        )
        for batch in islice(batches, count):
            last = batch
        batches.close()
        return last.inputs["img"], last.targets["img"]

    return run


def _raw(samples: Samples) -> Run:
    from taqstore.kinds.minibatches import batch_order

    folder = raw_files(samples)
    size, count = _size(samples)

    def run(call: int) -> Answer:
        order = batch_order(len(samples.names), batch_size=size, seed=call)
        for numbers in islice(order, count):
            last = tuple(_load(samples, folder, numbers, BLOCK + end) for end in (0, 1))
        return last[0], last[1]

    return run


def _load(
    samples: Samples, folder: Path, numbers: NDArray[np.int64], boundary: int
) -> NDArray[np.float16]:
    out = np.empty((len(numbers), *samples.tensor_shape), np.float16)
    for row, number in enumerate(numbers):
        out[row] = np.load(folder / raw_name(samples.names[number], boundary))
    return out


def _files(inputs: Inputs) -> list[Path]:
    return [inputs.store("blocks"), raw_files(Samples(inputs))]


BATCHES = {
    "batches": Question(
        "8 passes in minibatches of 8", contenders, _files, {RAW: Target(0.6)}, rounds=9
    )
}
