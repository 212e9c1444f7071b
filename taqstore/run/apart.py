"""Work in one other process, for what holds the interpreter: begun with this one, gone with it."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from functools import partial
from queue import SimpleQueue
from typing import IO, Any

from taqstore.run.dealing import beside
from taqstore.run.memory import give_back_all, give_back_large

# No module of the working folder, nor the program that called us, is run in the other process.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from taqstore.run.apart import answer; answer()"
_PROTOCOL = 5
_log = logging.getLogger(__name__)


@contextmanager
def apart() -> Iterator[Callable[..., Future[Any]]]:
    """As `dealing.beside`: one call after the other, done in another process.

    A function, what it is given and its answer are pickled; what it raises is raised here, with
    the traceback of over there as a note. That process takes no Ctrl-C, which ends this one and so
    both; where it cannot be had, or dies, its calls are done in a thread of this process instead.
    """
    try:
        there = _There(_started())
    except OSError as error:
        _log.debug("no other process: %s", error)
        with beside() as submit:
            yield submit
        return
    with there, beside() as submit:
        try:
            yield lambda function, *given: submit(there.ask, function, *given)
        except BaseException:
            there.end()  # who waits for an answer waits no longer
            raise


def _started() -> subprocess.Popen[bytes]:
    words = [sys.executable or "python", "-P", *(f"-W{option}" for option in sys.warnoptions)]
    return subprocess.Popen(
        [*words, "-c", _PROGRAM, *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )


class _There:
    """The other process, as who asks it sees it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process, self._lost, self._ended = process, False, False

    def __enter__(self) -> _There:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for pipe in self._pipes:
            with suppress(OSError):  # of what was not sent
                pipe.close()

    def ask(self, function: Callable[..., Any], *given: Any) -> Any:
        """Answer of the function over there; done here if it is lost meanwhile."""
        if not self._lost:
            try:
                found, error = self._told(pickle.dumps((function, given), _PROTOCOL))
            except (OSError, EOFError, pickle.UnpicklingError):
                self._lost = True
                _log.debug("the other process is lost: %s", self._process.poll())
            else:
                if error is not None:
                    raise error
                return found
        if self._ended:
            raise CancelledError
        return function(*given)

    def _told(self, asked: bytes) -> tuple[Any, BaseException | None]:
        asks, answers = self._pipes
        pickle.dump(asked, asks, _PROTOCOL)
        asks.flush()
        found: tuple[Any, BaseException | None] = pickle.load(answers)
        return found

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        asks, answers = self._process.stdin, self._process.stdout
        assert asks is not None
        assert answers is not None
        return asks, answers

    def end(self) -> None:
        """End it, whatever it is at."""
        self._ended = True
        self._process.kill()
        self._process.wait()


def answer() -> None:
    """Answer what is asked on stdin until its end, which ends the process at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    give_back_large()
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what is printed does not come between answers
    sys.stdout = sys.stderr
    calls: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=partial(_receive, asked, calls), daemon=True).start()
    with suppress(BrokenPipeError):
        while True:
            answers.write(_answered(calls.get()))
            answers.flush()
            give_back_all()  # who asks and who answers are there together


def _receive(asked: IO[bytes], calls: SimpleQueue[bytes]) -> None:
    try:
        while True:
            calls.put(pickle.load(asked))
    finally:  # it is gone, or was killed: there is nobody to answer
        os._exit(0)


def _answered(asked: bytes) -> bytes:
    """Pickled: an answer and None, or None and what was raised."""
    try:
        function, given = pickle.loads(asked)
        return pickle.dumps((function(*given), None), _PROTOCOL)
    except BaseException as error:
        told = "".join(traceback.format_exception(error))
        try:
            error.add_note(f"in the other process:\n{told}")
            return pickle.dumps((None, pickle.loads(pickle.dumps(error))), _PROTOCOL)
        except Exception:
            return pickle.dumps((None, RuntimeError(told)), _PROTOCOL)
