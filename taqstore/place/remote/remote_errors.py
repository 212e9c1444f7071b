"""What an object store refuses, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from taqstore.errors import StoreError, problem


@contextmanager
def remote_errors(name: str, key: str) -> Iterator[None]:
    """Turn what an object store refuses into one clear line."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        found = str(error).strip().partition("\n")[0]
        what, remedy = "the object store refused", "check its address and credentials"
        where = f"{name}/{key}"
        raise StoreError(problem(what, where=where, found=found, remedy=remedy)) from error
