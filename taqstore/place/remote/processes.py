"""Whether who holds something still runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def is_alive(process: int) -> bool:
    """Whether a process of this machine runs; one that has ended and is not waited for does not.

    Such a one stays where a container's first process waits for none.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    with suppress(OSError, IndexError):  # no Linux, or it was waited for since
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0] not in (b"Z", b"X")
    return True
