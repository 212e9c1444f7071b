"""Commands in forks of a process that has imported everything, killed before a chosen file event.

Reads one JSON list a line: arguments, and the number of the event to die before (-1: none). Answers
with how the command ended and how many events there were. A process of its own, as forks need a
single thread.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_COMMANDS = (
    "cache",
    "collect",
    "ingest",
    "merge",
    "repair",
    "upgrade",
    "export",
    "plot",
    "query",
    "report",
    "verify",
)


def _imported() -> None:
    names = ["zarr.codecs", "taqstore.pipelines.ingest", "taqstore.upkeep.info", "numcodecs.zstd"]
    names += ["taqstore.upkeep.repair", "taqstore.upkeep.upgrade", "taqstore.upkeep.merge"]
    names += ["taqstore.export.formats", "taqstore.query.select", "matplotlib.pyplot", "dask.array"]
    if find_spec("diffusionkit"):
        names += ["taqstore.pipelines.cache", "taqstore.pipelines.collect.collect"]
        names += ["support.live_models", "taqstore.cli.cache", "taqstore.cli.collect"]
    for name in [*names, *(f"taqstore.cli.{command}" for command in _COMMANDS)]:
        import_module(name)


def count_events(event: int, total: list[int]) -> None:
    """SIGKILL this process before its file event of that number; count them in `total`."""
    left = itertools.count(event, -1)

    def happens() -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        total[0] += 1

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        opened = name == "open" and arguments[0] != os.devnull and isinstance(arguments[2], int)
        if name in _CHANGES or (opened and arguments[2] & _WRITES):
            happens()

    for name in ("write", "fsync"):  # not audited
        setattr(os, name, _before(getattr(os, name), happens))
    sys.addaudithook(audit)


def _before(function: Callable[..., Any], happens: Callable[[], None]) -> Callable[..., Any]:
    def counted(descriptor: int, *arguments: Any) -> Any:
        if descriptor > 2:
            happens()
        return function(descriptor, *arguments)

    return counted


def _command(arguments: Sequence[str], event: int, answer: int) -> None:
    """What `python -m taqstore` does, silently; the exit code and the number of events."""
    from taqstore.cli import main

    write, total, code = os.write, [0], 0
    silent = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(silent, descriptor)
    sys.argv = ["taqstore", *arguments]
    count_events(event, total)
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        code = 99
    write(answer, json.dumps([code, total[0]]).encode())
    os._exit(0)


def _serve() -> None:
    _imported()
    for line in sys.stdin:
        arguments, event = json.loads(line)
        read, answer = os.pipe()
        process = os.fork()
        if process == 0:
            _command(arguments, event, answer)
        os.close(answer)
        with os.fdopen(read, "rb") as told:
            said = told.read()
        os.waitpid(process, 0)
        print(said.decode() or json.dumps([-signal.SIGKILL, event]), flush=True)


class Forks:
    """The other end: run a command to its end, or to a chosen event."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(_ROOT), str(_ROOT / "tests")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "campaign.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def run(self, *arguments: object, event: int = -1) -> tuple[int, int]:
        """Exit code, or minus SIGKILL, and the number of file events before the end."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps([list(map(str, arguments)), event]), file=self._process.stdin, flush=True)
        code, events = json.loads(self._process.stdout.readline())
        return code, events


if __name__ == "__main__":
    _serve()
