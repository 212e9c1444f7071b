"""What the C library does with large arrays that are freed."""

from __future__ import annotations

import ctypes
import gc
import sys
from contextlib import suppress

# M_MMAP_THRESHOLD of malloc.h, and bytes.
_MMAP_THRESHOLD, _LARGE = -3, 4 << 20


def give_back_large() -> bool:
    """Let glibc give arrays of 4 MB and more back to the system once they are freed.

    It raises that size to 32 MB by itself when the first such array is freed, and keeps others in
    heaps whose holes fit few: a quarter of the memory of a command that reduces whole observations.
    One that frees and takes such arrays all the time is slower for it. For commands, as it is of
    the whole process.

    Returns
    -------
    bool
        Whether it does: not beside glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE))
    except (OSError, AttributeError):
        return False


def give_back_all() -> None:
    """Free what is held by circles (figures are), and give all that is free back to the system.

    What is left is not looked through again the next time.
    """
    gc.collect()
    gc.freeze()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
