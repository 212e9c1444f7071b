"""Errors inside a model in one line: what, at which image, step and layer, and what may help.

Errors of our own code that runs inside a forward (hooks, reducers) stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from taqstore.errors import DEBUG, TaqError, problem

T = TypeVar("T")
_OURS = "_taqstore_own"
_REMEDY = f"{DEBUG}=1 shows where; what was complete is kept"
_MEMORY = "use smaller latents, fewer --images-per-batch, or a machine with more memory"


class ModelError(TaqError):
    """Something failed inside a model, or in the libraries that run it."""

    def __init__(self, what: str, *, places: tuple[str, ...], remedy: str) -> None:
        super().__init__(problem(what, where=", ".join(places), remedy=remedy))
        self.what, self.places, self.remedy = what, places, remedy

    def at(self, place: str) -> ModelError:
        """The same error, its place told more exactly: the outer one first."""
        return ModelError(self.what, places=(place, *self.places), remedy=self.remedy)


@contextmanager
def inside_model(place: str = "", mmdit: Any = None) -> Iterator[None]:
    """Turn what fails in a model until the block ends into a `ModelError`.

    Parameters
    ----------
    place
        Image, step, prompt: added to what a block inside this one has said.
    mmdit
        Whose layers are looked for among the frames of the error.

    Raises
    ------
    ModelError
        Anything failed that is neither an error of ours nor raised by a hook of ours.
    """
    with placed(place):
        try:
            yield
        except TaqError:
            raise
        except Exception as error:
            if getattr(error, _OURS, False):
                raise
            raise _told(error, mmdit) from error


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Say where in a run a model was, should it fail until the block ends."""
    try:
        yield
    except ModelError as error:
        if not place:
            raise
        raise error.at(place) from error.__cause__


def each_placed(items: Iterable[T], place: str) -> Iterator[T]:
    """Items as they are made, as `placed`."""
    with placed(place):
        yield from items


@contextmanager
def own_code() -> Iterator[None]:
    """Mark errors of code of ours that runs inside a forward: bugs keep their traceback."""
    try:
        yield
    except Exception as error:
        setattr(error, _OURS, True)
        raise


def _told(error: Exception, mmdit: Any) -> ModelError:
    lines = str(error).strip().splitlines()
    what = f"the model failed: {type(error).__name__}{': ' + lines[0] if lines else ''}"
    layer = _layer_of(error.__traceback__, mmdit) if mmdit is not None else ""
    places = (layer,) if layer else ()
    full = isinstance(error, MemoryError) or "allocate" in what
    return ModelError(what, places=places, remedy=_MEMORY if full else _REMEDY)


def _layer_of(trace: TracebackType | None, mmdit: Any) -> str:
    """The innermost layer or linear of the model that was running; empty where none was."""
    from .inputs import every_reader
    from .layers import blocks, halves

    names: dict[int, str] = {}
    for block in blocks(mmdit):
        names |= {id(block.module): block.name}
        names |= {id(module): layer for layer, module in halves(block)}
    names |= {id(reader.module): reader.name.full for reader in every_reader(mmdit)}
    found = ""
    while trace is not None:
        found = names.get(id(trace.tb_frame.f_locals.get("self")), found)
        trace = trace.tb_next
    return found
