"""Run commands in a process of its own, whose memory is limited, and see what each one took.

    python -m support.limited < CALLS

reads a JSON list of (name, arguments) and prints one of `Call`.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import astuple, dataclass
from pathlib import Path

SECONDS = 10
MEMORY = 1_000_000_000
# Addresses that may be taken: libraries reserve gigabytes that they never touch.
_ROOM = 8_000_000_000


@dataclass(frozen=True)
class Call:
    """How one command ended.

    Parameters
    ----------
    name, code
        What was called, and its exit code; -1 for a traceback.
    seconds, memory
        Processor time it took, and bytes that the process has taken so far.
    out, error
        What went to stdout and to stderr, or their ends.
    """

    name: str
    code: int
    seconds: float
    memory: int
    out: str
    error: str


def run_limited(
    calls: Iterable[tuple[str, Sequence[str]]], *, optimize: bool = False
) -> list[Call]:
    """Run commands one after another, in another process.

    Parameters
    ----------
    optimize
        As `python -O` does: without asserts.
    """
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *(["-O"] if optimize else []), "-m", "support.limited"],
        input=json.dumps([(name, list(map(str, arguments))) for name, arguments in calls]),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "MPLBACKEND": "agg"},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return [Call(*row) for row in json.loads(done.stdout)]


def complaints(calls: Iterable[Call]) -> list[str]:
    """What broke a promise: a traceback, a line of ours that is none, memory or time."""
    found = []
    for call in calls:
        lines = call.error.splitlines()
        if call.code < 0:
            found.append(f"{call.name}: {call.error[-1500:]}")
        elif any(len(line) > 2000 or not line.isprintable() for line in lines):
            found.append(f"{call.name}: a line too long, or that a terminal obeys")
        elif call.code == 1 and not lines and not call.out:
            found.append(f"{call.name}: no word of what is wrong")
        if call.seconds > SECONDS or call.memory > MEMORY:
            found.append(f"{call.name}: {call.seconds:.1f} s, {call.memory / 1e6:.0f} MB")
    return found


class _TooLong(BaseException):
    """A command took more than its time."""


def _stop(*_: object) -> None:
    raise _TooLong


def _call(arguments: Sequence[str]) -> tuple[int, str, str]:
    from taqstore.cli import main

    sys.argv = ["taqstore", *arguments]
    out, told = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stderr(told), redirect_stdout(out):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            code = -1
            traceback.print_exc(file=told)
    return code, out.getvalue()[:20_000], told.getvalue()[-20_000:]


def _most_memory() -> int:
    """Bytes that this process has had at most; `ru_maxrss` would count its parent's as well."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _main() -> None:
    import taqstore.store.reader
    import taqstore.upkeep.repair  # noqa: F401 - before the clock runs

    resource.setrlimit(resource.RLIMIT_AS, (_ROOM, _ROOM))
    signal.signal(signal.SIGALRM, _stop)
    rows = []
    for name, arguments in json.load(sys.stdin):
        signal.alarm(6 * SECONDS)  # others share the machine
        start = time.process_time()
        code, out, error = _call(arguments)
        signal.alarm(0)
        seconds = round(time.process_time() - start, 2)
        rows.append(astuple(Call(name, code, seconds, _most_memory(), out, error)))
    print(json.dumps(rows))


if __name__ == "__main__":
    _main()
