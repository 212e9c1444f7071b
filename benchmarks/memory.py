"""The largest resident set of a program."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Largest resident set of this program so far, mapped file pages included.

    `ru_maxrss` survives exec on Linux: a child would report its parent's size at the fork. There
    `VmHWM` of the same kernel counter is read, which starts anew with the program.
    """
    if _STATUS.exists():
        fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
