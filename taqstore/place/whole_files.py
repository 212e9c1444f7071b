"""Files as bytes without a copy: mapped, while the process has room for more maps.

A map lives as long as an array that shows it, and until Python 3.13 it keeps a descriptor of its
own for as long: a user who holds some layers of a store would run out of descriptors, and so
would whatever else the process opens. Past a share of them files are read instead.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Protocol
from weakref import ref

# Part of the descriptors a process may have that maps take at most.
_SHARE = 4
# Where maps keep no descriptor, far below the kernel's usual limit of 65,530 maps.
_MOST = 16_384

# Bytes that are read as fast as they are mapped.
_SMALL = 1 << 16

_held: set[ref[mmap.mmap]] = set()


def whole_file(descriptor: int) -> mmap.mmap | bytes:
    """All of a file, read-only; the descriptor may be closed afterwards.

    Raises
    ------
    ValueError
        It is empty.
    OSError
        It cannot be read.
    """
    size = os.fstat(descriptor).st_size
    if size > _SMALL and len(_held) < _most():
        try:
            mapped = _map(descriptor)
        except OSError:  # there are more maps, or descriptors, than ours
            pass
        else:
            _held.add(ref(mapped, _held.discard))
            return mapped
    if not size:
        raise ValueError("0 bytes")
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


class Mapping(Protocol):
    """What keeps maps of files, and can do without."""

    def unmap(self) -> None:
        """Let go of them."""


class MapBudget:
    """Bytes that some keep mapped, all together; safe to use from threads.

    Parameters
    ----------
    most
        How many; one of them may have more.
    """

    def __init__(self, most: int) -> None:
        self.most, self._bytes, self._lock = most, 0, Lock()
        self._sizes: OrderedDict[ref[Mapping], int] = OrderedDict()

    def took(self, latest: Mapping, size: int) -> None:
        """Let those go that mapped least lately, where there is no room.

        Parameters
        ----------
        size
            Bytes that `latest` has mapped by now.
        """
        key, gone = ref(latest), []
        with self._lock:
            self._bytes += size - self._sizes.pop(key, 0)
            self._sizes[key] = size
            while self._bytes > self.most and len(self._sizes) > 1:
                one, freed = self._sizes.popitem(last=False)
                self._bytes -= freed
                gone.append(one)
        for one in gone:
            if (done := one()) is not None:
                done.unmap()


def _mapping() -> Callable[[int], mmap.mmap]:
    if sys.version_info >= (3, 13):
        return lambda descriptor: mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ, trackfd=False)
    return lambda descriptor: mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)


def _most() -> int:
    """How many maps are held at once."""
    if sys.version_info >= (3, 13):
        return _MOST
    try:
        import resource
    except ImportError:  # no such limit here
        return _MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if soft == resource.RLIM_INFINITY else min(_MOST, soft // _SHARE)


_map = _mapping()
