"""Commands as processes of their own, forked from one that has imported what they need.

A fresh interpreter spends seconds on imports, each time the same. A fork is a process like any
other: it has a number, files for stdout and stderr, takes signals, ends by the interpreter's own
end with its exit code, and shares no memory with the test. Where imports are what is tested, or
the interpreter's options, start `python -m taqstore` instead.

As a program: `MODULE...` are imported, of `MODULE:FUNCTION` the function is called too, and
`-MODULE` is not to be had. It reads a question a line: what to begin, or how one is doing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).resolve().parents[1]
_STREAMS = ("out", "err")


# It belongs to the allocator of pyarrow, which sees to forks itself.
_HARMLESS = "jemalloc_bg_thd"


def _others() -> int:
    """How many threads there are besides this one: a fork would be without them."""
    tasks = Path("/proc/self/task")
    names = [task.joinpath("comm").read_text().strip() for task in tasks.glob("*")]
    return sum(name != _HARMLESS for name in names) - 1 if names else threading.active_count() - 1


def _serve(modules: list[str]) -> dict[str, Any]:
    """Answer until the other end is gone; returns, in a fork, what it has to run."""
    for name in modules:
        if name.startswith("-"):
            sys.modules[name[1:]] = None  # type: ignore[assignment]
            continue
        module, _, called = name.partition(":")
        found = import_module(module)
        if called:
            getattr(found, called)()
    print(_others(), flush=True)
    for line in sys.stdin:
        asked: dict[str, Any] = json.loads(line)
        if "words" not in asked:
            done, status = os.waitpid(asked["process"], os.WNOHANG)
            print(os.waitstatus_to_exitcode(status) if done else "", flush=True)
            continue
        process = os.fork()
        if process == 0:
            return asked
        print(process, flush=True)
    sys.exit()


def _become(asked: dict[str, Any]) -> None:
    """What `python -m taqstore WORDS` does, from here on."""
    from taqstore.cli import main

    silent = os.open(os.devnull, os.O_RDONLY)
    made = [os.open(asked[name], os.O_WRONLY | os.O_CREAT, 0o600) for name in _STREAMS]
    for number, descriptor in enumerate((silent, *made)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - what was read ahead is the server's
    # A shell's background job, as CI may run us in, hands "ignore" for Ctrl-C down to children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["taqstore", *asked["words"]]
    # As the console script has it: click names the program after the package that is run.
    sys.modules["__main__"].__package__ = None
    sys.exit(main())


class Fork:
    """One command; the calls are those of `subprocess.Popen`."""

    def __init__(self, forks: Forks, process: int, files: dict[str, Path]) -> None:
        self._forks, self._files = forks, files
        self.pid, self.returncode = process, None

    returncode: int | None

    def poll(self) -> int | None:
        if self.returncode is None:
            told = self._forks.ask({"process": self.pid})
            self.returncode = int(told) if told else None
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired("taqstore", timeout)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait; what went to stdout and stderr."""
        self.wait(timeout)
        out, err = (self._files[name].read_text("utf-8") for name in _STREAMS)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that commands are forked from.

    Parameters
    ----------
    modules
        What it imports first, as the program takes it.
    folder
        Where stdout and stderr of commands lie.
    """

    def __init__(self, modules: tuple[str, ...], folder: Path) -> None:
        paths = (str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", ""))
        self._folder, self._begun = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.forks", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        others = self._answer()
        assert others == "0", f"{others} threads besides the first: what is forked may hang"

    def ask(self, question: dict[str, Any]) -> str:
        """The answer, a line."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the process that commands are forked from has ended"
        return line.strip()

    def start(self, *words: Any) -> Fork:
        """Begin a command."""
        self._begun += 1
        files = {name: self._folder / f"{self._begun}.{name}" for name in _STREAMS}
        told = {name: str(path) for name, path in files.items()}
        return Fork(self, int(self.ask({"words": [*map(str, words)], **told})), files)

    def run(self, *words: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        fork = self.start(*words)
        out, err = fork.communicate()
        assert fork.returncode is not None
        return subprocess.CompletedProcess([*map(str, words)], fork.returncode, out, err)

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


@contextmanager
def forks(*modules: str) -> Iterator[Forks]:
    """Forks of a process that has imported some modules."""
    with tempfile.TemporaryDirectory() as folder:
        begun = Forks(modules, Path(folder))
        try:
            yield begun
        finally:
            begun.close()


if __name__ == "__main__":
    _become(_serve(sys.argv[1:]))
