"""Writers stopped before a chosen file comes into its place, as a kill would."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taqstore.place.local_backend import LocalBackend


def stopped_before_each(
    act: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Do something again and again, stopped before its first, second, ... file is put in place.

    Yields after every stop, with its number from 0; ends once nothing stopped it.
    """
    put = LocalBackend._put
    for stop in itertools.count():
        left = itertools.count(stop, -1)

        def stopping(self: LocalBackend, temporary: Path, path: Path) -> None:
            if next(left) == 0:  # noqa: B023 - called here
                raise KeyboardInterrupt
            put(self, temporary, path)

        with monkeypatch.context() as patched:
            patched.setattr(LocalBackend, "_put", stopping)
            try:
                act()
                return
            except KeyboardInterrupt:
                pass
        yield stop


def killed_gate(store: Path, variant: str, *, count: int) -> None:
    """Run `taqstore gate` in a process that is killed once it has kept one more trajectory."""
    commits = store / "trajectories" / "float" / "items" / "commit"
    words = ["gate", str(store), "--variant", variant, "--seeds", str(count)]
    with subprocess.Popen([sys.executable, "-m", "taqstore", *words]) as running:
        while running.poll() is None and not any(commits.rglob("c.*")):
            time.sleep(0.01)
        running.kill()
    assert running.returncode == -signal.SIGKILL
