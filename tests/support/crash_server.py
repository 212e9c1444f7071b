"""Run `taqstore` commands in forks of a process that has imported everything already.

A kill at a random moment of a fresh interpreter mostly hits its imports. Forks start at once, so
the kills fall where files are written. Reads one JSON list of arguments a line; answers with the
process id, and, when that process is gone, its wait status.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def serve() -> None:
    for name in (
        "zarr.codecs",
        "taqstore.pipelines.ingest",
        "taqstore.cli.ingest",
        "taqstore.upkeep.info",
    ):
        import_module(name)

    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            command(json.loads(line))
        print(process, flush=True)
        print(os.waitpid(process, 0)[1], flush=True)


def command(arguments: list[str]) -> None:
    """What `python -m taqstore` does, in this process, silently."""
    from taqstore.cli import main

    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    sys.argv = ["taqstore", *arguments]
    try:
        main()
        os._exit(0)
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    except BaseException:
        os._exit(99)


class Server:
    """The other end: start a command, perhaps kill it, wait for it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        self._id = 0

    def start(self, *arguments: Any) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(a) for a in arguments]).encode() + b"\n")
        self._id = int(self._process.stdout.readline())

    def wait(self) -> int:
        """Exit code, or minus the signal that ended the command."""
        assert self._process.stdout
        return os.waitstatus_to_exitcode(int(self._process.stdout.readline()))

    def kill_when(self, ready: Callable[[], bool]) -> bool:
        """SIGKILL once `ready`; True if that is what ended the command."""
        while self._runs() and not ready():
            time.sleep(0.001)
        if self._runs():
            os.kill(self._id, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def _runs(self) -> bool:
        """Whether the server has not yet said that the command is gone."""
        assert self._process.stdout
        # Not `select`, which refuses a number beyond 1023, and a long run of tests has many open.
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            return not selector.select(0)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


if __name__ == "__main__":
    serve()
