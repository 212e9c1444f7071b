"""Minibatches of a block's samples in random order, read ahead within a stated amount of memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from taqstore.asked import word_of
from taqstore.errors import MisuseError, TaqError, problem
from taqstore.kinds.block_samples import Batch, BlockSamples, joined, open_block
from taqstore.place.location import Address
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.store.reader import Store

Shuffle = Literal["global", "window"]
Numbers = NDArray[np.int64]
MEMORY_BUDGET = 2 << 30
_PREFETCH = 2
# Besides those read ahead: the one handed out, and the one before it that the caller still holds.
_IN_HAND = 2


@takes_storage_options
def iter_batches(
    store: Store | Address,
    block: str,
    *,
    batch_size: int = 32,
    shuffle: Shuffle = "global",
    window: int = 256,
    cycles: int = 4,
    seed: int = 0,
    start: int = 0,
    prefetch: int = _PREFETCH,
    streams: Sequence[str] | None = None,
    memory_budget: int = MEMORY_BUDGET,
    staging: int | None = None,
    storage_options: StorageOptions | None = None,
) -> Generator[Batch, None, None]:
    """Yield minibatches of a block for ever; stop taking them, or `close` the iterator.

    Which samples come when depends on the samples there are, `batch_size`, `shuffle`, `window`,
    `cycles` and `seed`, on nothing else. All samples come once before one comes again (`window`:
    all `cycles` times); batches run on over the end of a pass, so that all have `batch_size`.

    Parameters
    ----------
    store, block, streams, staging
        As of `open_block`.
    batch_size
        Samples in a batch.
    shuffle
        `global`: each pass over all samples in an order of its own, each read when it comes.
        `window`: each pass cuts such an order into windows, reads a window into memory and goes
        over it `cycles` times, each time in another order, so that a sample is read once for
        `cycles` uses.
    window, cycles
        Samples of a window, at least a batch, and how often it is gone over.
    seed
        Of the orders.
    start
        Batches to pass over without reading them: the iterator goes on where one left off.
    prefetch
        Batches read ahead by a thread of its own; 0: none.
    memory_budget
        Bytes that batches and a window may take. Pages of mapped files, which the system takes
        back when it needs them, are not counted.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MissingError
        As of `open_block`.
    TaqError
        Too few samples, options that make no sense, or the budget is too small. All are raised
        by the call, before the first batch is asked for.
    """
    samples = open_block(store, block, streams=streams, staging=staging)
    _check(samples, batch_size, shuffle, window, cycles, start, prefetch)
    kept = min(window, len(samples)) if shuffle == "window" else 0
    held = memory_samples(batch_size, kept, prefetch)
    _check_budget(block, samples.nbytes * held, memory_budget)
    order = batch_order(len(samples), batch_size=batch_size, window=kept, cycles=cycles, seed=seed)
    read = _Window(samples, kept + batch_size).read if kept else samples.read
    return _ahead(read, islice(order, start, None), prefetch)


def check_batch(block: str, batch_size: int, *, samples: int, nbytes: int) -> None:
    """Refuse a batch of `iter_batches` as it would, before there are samples of the block.

    Parameters
    ----------
    samples, nbytes
        How many there will be, and bytes of one.

    Raises
    ------
    TaqError
        More than there are, or more than the memory budget.
    """
    _check_count(block, batch_size, samples)
    _check_budget(block, nbytes * memory_samples(batch_size, 0, _PREFETCH), MEMORY_BUDGET)


def _check_budget(block: str, needed: int, budget: int) -> None:
    if needed > budget:
        what = f"batches of {block} need {needed} bytes of memory"
        remedy = "smaller --batch-size, window or prefetch, or a larger budget"
        raise TaqError(problem(what, found=f"a budget of {budget}", remedy=remedy))


def _check_count(block: str, batch_size: int, samples: int) -> None:
    if batch_size > samples:
        what = f"a batch of {batch_size} is more than the samples of {block}"
        raise TaqError(problem(what, found=str(samples), remedy="smaller --batch-size"))


def memory_samples(batch_size: int, window: int, prefetch: int) -> int:
    """Samples that `iter_batches` holds at most; `window` is 0 with global shuffling."""
    return batch_size * (prefetch + _IN_HAND) + (window + batch_size if window else 0)


def _check(
    samples: BlockSamples,
    batch_size: int,
    shuffle: str,
    window: int,
    cycles: int,
    start: int,
    prefetch: int,
) -> None:
    word_of(shuffle, get_args(Shuffle), "shuffle")
    if min(batch_size, cycles) < 1 or min(start, prefetch) < 0:
        what = "batch_size and cycles must be at least 1, start and prefetch at least 0"
        raise MisuseError(problem(what, found=f"{batch_size}, {cycles}, {start}, {prefetch}"))
    _check_count(samples.block, batch_size, len(samples))
    if shuffle == "window" and window < batch_size:
        raise MisuseError(problem(f"a window must hold a batch of {batch_size}", found=str(window)))


def batch_order(
    samples: int, *, batch_size: int, window: int = 0, cycles: int = 1, seed: int = 0
) -> Iterator[Numbers]:
    """Numbers of the samples of batch after batch, ``(batch_size,)``, without end.

    Parameters
    ----------
    samples
        How many there are.
    window, cycles
        As of `iter_batches`; a window of 0 is global shuffling.
    """
    waiting = np.empty(0, np.int64)
    for numbers in _runs(samples, window, cycles, seed):
        waiting = np.concatenate([waiting, numbers])
        while len(waiting) >= batch_size:
            yield waiting[:batch_size]
            waiting = waiting[batch_size:]


def _runs(samples: int, window: int, cycles: int, seed: int) -> Iterator[Numbers]:
    """Permutations to be strung together: of all samples, or of one window after the other."""
    for turn in count():
        order = np.random.default_rng([seed, turn]).permutation(samples)
        if not window:
            yield order
            continue
        for number, first in enumerate(range(0, samples, window)):
            rng = np.random.default_rng([seed, turn, number])
            for _ in range(cycles):
                yield rng.permutation(order[first : first + window])


class _Window:
    """Samples read before, kept until `capacity` others have come after them."""

    def __init__(self, samples: BlockSamples, capacity: int) -> None:
        self._samples, self._capacity = samples, capacity
        self._kept: dict[int, Batch] = {}

    def read(self, numbers: Numbers) -> Batch:
        """A batch, of which only what is not kept is read."""
        fresh = [n for n in dict.fromkeys(numbers.tolist()) if n not in self._kept]
        # What this batch needs is the newest now; the oldest make room.
        for number in numbers.tolist():
            if number in self._kept:
                self._kept[number] = self._kept.pop(number)
        while len(self._kept) + len(fresh) > self._capacity:
            del self._kept[next(iter(self._kept))]
        for number in fresh:
            self._kept[number] = self._samples.read([number])
        return joined([self._kept[number] for number in numbers.tolist()])


def _ahead(
    read: Callable[[Numbers], Batch], order: Iterator[Numbers], prefetch: int
) -> Generator[Batch, None, None]:
    """Read in order, `prefetch` batches ahead of the one handed out."""
    if not prefetch:
        yield from map(read, order)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="taqstore-batches")
    try:
        coming: deque[Future[Batch]] = deque(pool.submit(read, n) for n in islice(order, prefetch))
        for numbers in order:
            batch = coming.popleft().result()
            coming.append(pool.submit(read, numbers))
            yield batch
    finally:
        # Also when the caller stops early: nothing goes on reading, no thread is left behind.
        pool.shutdown(cancel_futures=True)
