"""Forwards of a small model, one made ready while another is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from ..models.backend import backend
from ..models.load import LoadedModel, Tensor
from .inputs import Inputs

_Part = TypeVar("_Part")
_Answer = TypeVar("_Answer")

# A third would wait for the interpreter, in which forwards are made ready.
_LANES = 2
READYING = Lock()
"""Held while a forward is made ready: modules and what watches them are of all threads."""


def may_overlap(model: LoadedModel, latent: Tensor) -> bool:
    """Whether two forwards take less time side by side than one after the other.

    They do where each keeps one core busy: on a CPU, with products that one thread makes. MLX's
    streams have to be of a thread, and the model may keep nothing of a forward for the next.
    """
    mx = backend().mx
    return (
        model.keeps_nothing
        and model.is_small(latent)
        and hasattr(mx, "new_thread_local_stream")
        and mx.default_device().type == mx.DeviceType.cpu
    )


def is_overlapped(model: LoadedModel, found: Inputs) -> bool:
    """Whether forwards of a run `may_overlap`, by the first latent that it has."""
    first = found.steps[int(np.argmax(found.seen[0]))]
    return may_overlap(model, found.latent(model, found.images[0], first))


@contextmanager
def side_by_side(
    forward: Callable[[_Part], _Answer], parts: Iterable[_Part], *, overlap: bool
) -> Iterator[Iterator[_Answer]]:
    """Answers in order, as `map`: each forward is begun while the one before is under way.

    Parameters
    ----------
    forward
        Makes a forward ready with `READYING` held, and evaluates it without. What it answers is
        evaluated: arrays, or tensors of which nothing more is asked.
    overlap
        False: it is called in this thread, when an answer is asked for.

    Notes
    -----
    When the block ends nothing is under way, whatever ended it.
    """
    under_way = deque[Future[_Answer]]()
    try:
        yield _answers(under_way, forward, parts) if overlap else map(forward, parts)
    finally:
        _end(under_way)


def _answers(
    under_way: deque[Future[_Answer]],
    forward: Callable[[_Part], _Answer],
    parts: Iterable[_Part],
) -> Iterator[_Answer]:
    for part in parts:
        under_way.append(_lanes().submit(forward, part))
        if len(under_way) > _LANES:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _end(under_way: Iterable[Future[Any]]) -> None:
    for future in under_way:
        if not future.cancel():
            with suppress(Exception):
                future.result()


@cache
def _lanes() -> ThreadPoolExecutor:
    """Threads of the process: MLX leaves a stream behind for each that ends."""
    return ThreadPoolExecutor(_LANES, thread_name_prefix="taqstore-forward")
