"""What may fail without taking the result with it: pictures, figures, decoders."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from taqstore.errors import DEBUG, TaqError, printable

_log = logging.getLogger(__name__)
_LONGEST = 300


@contextmanager
def extra(what: str, notes: list[str]) -> Iterator[None]:
    """Do something that the result does not need; what it raises becomes one line of `notes`.

    Whatever a decoder or a drawing library raises is caught, but no interrupt. With
    `TAQSTORE_DEBUG` set, the traceback of an error that is not ours is printed on stderr.

    Parameters
    ----------
    what
        What is left out then: ``the contact sheet``.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get(DEBUG) and not isinstance(error, TaqError):
            traceback.print_exc()
        else:
            _log.debug("%s left out", what, exc_info=not isinstance(error, TaqError))
        notes.append(f"{what} left out: {_reason(error)}")


def _reason(error: Exception) -> str:
    text = printable(str(error), longest=_LONGEST)
    if isinstance(error, TaqError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
