"""Units of a run as tasks of dask: one each, in processes that keep the model they have loaded.

A task calls the pipeline again for its unit, opens the store itself, claims, writes and flags as
any process does. So a worker that is lost costs its unit, which dask gives to another; whoever sent
the tasks closes the groups and records the run.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from threading import Lock
from typing import Any

from taqstore.asked import meant
from taqstore.errors import MisuseError, TaqError, problem
from taqstore.run.dealing import NO_DASHBOARD
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome

from .kept import keeping_models

HERE, PROCESSES, DISTRIBUTED = ("threads", "synchronous"), "processes", "distributed"
CONNECT_SECONDS = 10
# Flags of tasks are closed after so many units: each lies in a file of its own until then.
_CLOSED_AFTER = 500
_QUIET = "taqstore.pipelines.tasks.uninterrupted"
# A pool of processes is made anew so often: what ends its processes every time is no accident.
_POOLS = 3
_NAMED = re.compile(rf"({PROCESSES}|{DISTRIBUTED})(?::(\d{{1,4}}))?")
_CLIENT: ContextVar[Any] = ContextVar("client", default=None)
# Of a process: a model is not to be run by two threads, whose hooks would meet.
_ALONE = Lock()
Run = Callable[[Mode], Outcome]
Told = Callable[["Done"], None]


@dataclass(frozen=True)
class Scheduler:
    """Where tasks run.

    Parameters
    ----------
    kind
        `processes`, `distributed` (workers on this machine), or the address of a scheduler.
    workers
        How many there are of the first two; None: one for each core.
    """

    kind: str
    workers: int | None = None

    @classmethod
    def parse(cls, text: str) -> Scheduler | None:
        """Understand `processes`, `distributed:4`, `tcp://host:8786`; None: here, no tasks.

        Raises
        ------
        MisuseError
            It is none of these.
        """
        if text in HERE:
            return None
        match = _NAMED.fullmatch(text)
        if match is not None and match[2] != "0":
            return cls(match[1], None if match[2] is None else int(match[2]))
        if re.match(r"[a-z+]+://.", text):
            return cls(text)
        remedy = f"{meant(text, (PROCESSES, DISTRIBUTED))}, each with a number of workers like "
        remedy += f"{DISTRIBUTED}:4, or an address like tcp://HOST:8786"
        raise MisuseError(problem(f"scheduler {text!r} is not known", remedy=remedy))


def scheduler_of(mode: Mode) -> Scheduler | None:
    """Where a run's tasks are; None: it has none."""
    return None if mode.scheduler is None else Scheduler.parse(mode.scheduler)


@dataclass
class Done:
    """What a task did.

    Parameters
    ----------
    label, amount
        What it told of its progress: the last label, and all amounts.
    error
        What it was refused with, which ends the run.
    """

    numbers: tuple[int, ...]
    outcome: Outcome = field(default_factory=Outcome)
    label: str = ""
    amount: int = 0
    error: TaqError | None = None

    def start(self, total: int) -> None:
        """Progress of a task is told as it ends."""

    def advance(self, label: str, amount: int = 1) -> None:
        """Count on."""
        self.label, self.amount = label, self.amount + amount


def spread(
    run: Run,
    parts: Sequence[Sequence[int]],
    *,
    mode: Mode,
    outcome: Outcome,
    close: Callable[[], None],
) -> list[int]:
    """Do units as tasks, a part each; returns the numbers of those that other processes hold.

    Parameters
    ----------
    run
        Calls the pipeline in a mode.
    outcome
        What tasks wrote and noted is added here.
    close
        Called now and then.

    Raises
    ------
    TaqError
        What a task raised, or no scheduler answers, or workers are lost again and again.
    """
    where, left = scheduler_of(mode), list[int]()
    assert where is not None
    finished = 0

    def told(done: Done) -> None:
        nonlocal finished
        if done.error is not None:
            raise done.error
        outcome.add(done.outcome)
        left.extend(done.outcome.left)
        if done.amount:
            mode.progress.advance(done.label, done.amount)
        before, finished = finished, finished + len(done.numbers)
        if before // _CLOSED_AFTER < finished // _CLOSED_AFTER:
            close()

    each = _in_processes if where.kind == PROCESSES else _on_cluster
    each(where, run, [tuple(part) for part in parts], told)
    return left


def one_task(run: Run, numbers: tuple[int, ...]) -> Done:
    """Do the units of a task, in the process of a worker."""
    done = Done(numbers)
    with _ALONE, keeping_models():
        try:
            done.outcome = run(Mode(resume=True, only=frozenset(numbers), progress=done))
        except TaqError as error:
            done.error = error
    done.outcome.plan = None
    return done


def _on_cluster(where: Scheduler, run: Run, parts: list[tuple[int, ...]], told: Told) -> None:
    with connected(where) as client:
        distributed = import_module("distributed")
        # Not pure: a unit that was left is asked for again.
        futures = client.map(partial(one_task, run), parts, pure=False)
        try:
            for future in distributed.as_completed(futures):
                told(_result(distributed, future))
        finally:
            client.cancel(futures)


def _result(distributed: Any, future: Any) -> Done:
    try:
        done: Done = future.result()
    except distributed.KilledWorker as error:
        what = "workers were lost one after another at the same unit"
        remedy = "see their logs (memory?), then run again with --resume"
        raise TaqError(problem(what, found=str(error).splitlines()[0], remedy=remedy)) from error
    except ModuleNotFoundError as error:
        what, remedy = "a worker lacks what is needed", "install taqstore on all workers alike"
        raise TaqError(problem(what, found=str(error), remedy=remedy)) from error
    return done


def _distributed(where: Scheduler) -> Any:
    try:
        return import_module("distributed")
    except ModuleNotFoundError as error:
        remedy = "pip install 'taqstore[distributed]'"
        what = f"--scheduler {where.kind} needs dask.distributed"
        raise TaqError(problem(what, remedy=remedy)) from error


@contextmanager
def connected(where: Scheduler | None) -> Iterator[Any]:
    """A client of dask.distributed for what is spread inside; None where tasks need none.

    Inside another one it is that one: workers are started once.

    Raises
    ------
    TaqError
        dask.distributed is not installed, or nothing answers at the address.
    """
    known = _CLIENT.get()
    if known is not None or where is None or where.kind == PROCESSES:
        yield known
        return
    with _client(_distributed(where), where) as client:
        before = _CLIENT.set(client)
        try:
            yield client
        finally:
            _CLIENT.reset(before)


def client_now() -> Any:
    """The client that tasks are sent by now; None where none are."""
    return _CLIENT.get()


@contextmanager
def _client(distributed: Any, where: Scheduler) -> Iterator[Any]:
    if where.kind == DISTRIBUTED:
        with (
            distributed.LocalCluster(
                n_workers=where.workers or os.cpu_count(),
                threads_per_worker=1,
                preload=[*import_module("dask").config.get("distributed.worker.preload"), _QUIET],
                silence_logs=logging.ERROR,
                **NO_DASHBOARD,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(where.kind, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        what = "no dask scheduler answers"
        raise TaqError(problem(what, where=where.kind, found=str(error))) from error
    with client:
        yield client


def _in_processes(where: Scheduler, run: Run, parts: list[tuple[int, ...]], told: Told) -> None:
    """By dask's own scheduler of local processes; those that are lost are replaced some times."""
    dask: Any = import_module("dask")
    callbacks: Any = import_module("dask.callbacks")
    missing, task = dict.fromkeys(parts), dask.delayed(one_task, pure=False)

    def finished(key: Any, done: Done, *_: Any) -> None:
        if isinstance(done, Done):
            missing.pop(done.numbers, None)
            told(done)

    for attempt in range(_POOLS):
        tasks = [task(run, part) for part in missing]
        try:
            with callbacks.Callback(posttask=finished):
                dask.compute(
                    *tasks,
                    scheduler=PROCESSES,
                    num_workers=where.workers,
                    initializer=_begin_worker,
                    chunksize=1,
                    optimize_graph=False,
                )
        except BrokenProcessPool as error:
            if attempt == _POOLS - 1:
                what = f"worker processes were lost {_POOLS} times"
                remedy = "see whether memory suffices, then run again with --resume"
                raise TaqError(problem(what, remedy=remedy)) from error
        else:
            return


def _interrupted(*_: object) -> None:
    """Ctrl-C reaches all processes of a terminal: one at work stops it, an idle one just ends."""
    if _ALONE.locked():
        raise KeyboardInterrupt
    os._exit(130)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, _interrupted)
