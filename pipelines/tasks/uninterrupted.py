"""A worker that Ctrl-C does not reach: whoever started it ends it, and says one line for all.

Loaded by workers of dask.distributed as they begin (`preload`).
"""

from __future__ import annotations

import signal
from threading import current_thread, main_thread
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave the interrupt of a terminal to the process that sends the tasks."""
    if current_thread() is main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
