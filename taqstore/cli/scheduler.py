"""Where work is done: `--scheduler`, the same words for every command that reads a whole store.

Two ways to use it. What xarray and dask compute, is computed inside of `computing`. What is no
array (a group to describe, files to compare) is given in parts to the function that `dealing`
yields, which is `map` on the same workers. Answers do not depend on the scheduler.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from typing import Any

import click

from taqstore.asked import meant
from taqstore.cli.completed import Named
from taqstore.errors import TaqError, problem
from taqstore.faces import named
from taqstore.run.dealing import NO_DASHBOARD, Each, cores, dealt, one_by_one

_LOCAL = ("threads", "synchronous", "processes")
_GETS = {"threads": "dask.threaded:get", "synchronous": "dask.local:get_sync"}
_CLUSTER = "distributed"
_COUNTED = re.compile(r"(threads|processes|distributed):([1-9]\d*)")
_IN_PROCESS = ("threads", "synchronous")
CONNECT_SECONDS = 10
LEAST_THREADS = 4
"""Threads wait for a disk or a network more than they compute: some more than there are cores."""


def _known(context: click.Context, option: click.Parameter, name: str) -> str:
    if name in (*_LOCAL, _CLUSTER) or re.match(r"[a-z+]+://.", name) or _COUNTED.fullmatch(name):
        return name
    remedy = f"{meant(name, (*_LOCAL, _CLUSTER))}, or an address like tcp://HOST:8786"
    raise click.BadParameter(problem(f"{name!r} is not known", remedy=remedy))


scheduler_option = click.option(
    "--scheduler",
    type=Named(lambda asked: (*_LOCAL, _CLUSTER)),
    callback=_known,
    default="threads",
    show_default=True,
    metavar="NAME",
    help="threads, synchronous, processes, distributed (workers on this machine), with a number of "
    "them like distributed:4; or the address of a running dask scheduler.",
)


def in_process(scheduler: str) -> bool:
    """Whether a scheduler is this process, which needs no copy of what it has."""
    return _parted(scheduler)[0] in _IN_PROCESS


def _parted(scheduler: str) -> tuple[str, int | None]:
    """A name and the number of workers, where one was given; addresses as they are."""
    found = _COUNTED.fullmatch(scheduler)
    return (found[1], int(found[2])) if found else (scheduler, None)


@contextmanager
def computing(scheduler: str, *stores: str) -> Iterator[None]:
    """Compute what is computed inside on a scheduler; results do not depend on which.

    Parameters
    ----------
    scheduler
        A value of `scheduler_option`.
    stores
        Addresses of the stores that are read, which workers open for themselves.

    Raises
    ------
    TaqError
        A store is in this process's memory and the workers are not; dask.distributed is not
        installed; nothing answers at the address; workers were lost again and again.
    """
    import dask.config

    _check_reach(scheduler, stores)
    kind, number = _parted(scheduler)
    with ExitStack() as stack:
        if kind == "processes":  # kept for all that is computed: they take seconds to begin
            stack.enter_context(_lost_workers(scheduler))
            pool = stack.enter_context(_pool(scheduler)[0])
            stack.enter_context(dask.config.set(scheduler=kind, pool=pool))
        elif kind in _LOCAL:
            # The function, not its name: for a name dask looks for a cluster first, and imports it.
            get = named(_GETS[kind])
            stack.enter_context(dask.config.set(scheduler=get, num_workers=number))
        else:
            stack.enter_context(cluster(scheduler))
        yield


@contextmanager
def dealing(scheduler: str, *stores: str, least: int = LEAST_THREADS) -> Iterator[Each]:
    """A function like `map` that does its work on a scheduler; parameters and errors as above.

    Parameters
    ----------
    least
        Threads, however few cores there are.
    """
    _check_reach(scheduler, stores)
    if scheduler == "synchronous":
        yield one_by_one
        return
    with ExitStack() as stack:
        if _parted(scheduler)[0] in _LOCAL:
            stack.enter_context(_lost_workers(scheduler))
            pool, workers = _pool(scheduler, least)
            stack.enter_context(pool)
        else:
            client = stack.enter_context(cluster(scheduler))
            pool = client.get_executor(pure=False)
            stack.callback(pool.shutdown, wait=False)  # what still runs is cancelled
            workers = sum(client.ncores().values()) or 1
        yield dealt(pool, workers)


def _pool(scheduler: str, least: int = 1) -> tuple[Any, int]:
    """Threads or processes, and how many; as many as dask would take, where none is said."""
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
    from multiprocessing import get_context

    kind, asked = _parted(scheduler)
    number = asked or int(os.environ.get("DASK_NUM_WORKERS", 0)) or cores()
    if kind == "threads":
        number = asked or max(number, least)
        return ThreadPoolExecutor(number, thread_name_prefix="taqstore"), number
    return ProcessPoolExecutor(number, mp_context=get_context("spawn")), number


def _check_reach(scheduler: str, stores: tuple[str, ...]) -> None:
    here = next((store for store in stores if store.startswith("memory://")), None)
    if here is not None and not in_process(scheduler):
        what = "other processes cannot read a store in this one's memory"
        raise TaqError(problem(what, where=here, remedy="use --scheduler threads"))


@contextmanager
def cluster(scheduler: str) -> Iterator[Any]:
    """A client of `distributed` or of an address, on which dask computes while within."""
    try:
        distributed: Any = import_module("distributed")
    except ModuleNotFoundError as error:
        remedy = "pip install 'taqstore[distributed]'"
        what = f"--scheduler {scheduler} needs dask.distributed"
        raise TaqError(problem(what, remedy=remedy)) from error
    with ExitStack() as stack:
        stack.enter_context(_lost_workers(scheduler))
        kind, number = _parted(scheduler)
        if kind == _CLUSTER:
            stack.enter_context(_same_environment())
            workers = stack.enter_context(
                distributed.LocalCluster(n_workers=number, **NO_DASHBOARD)
            )
            yield stack.enter_context(distributed.Client(workers))
            return
        try:
            client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            what = "no dask scheduler answers"
            raise TaqError(problem(what, where=scheduler, found=str(error))) from error
        yield stack.enter_context(client)


@contextmanager
def _same_environment() -> Iterator[None]:
    """What starts workers sets threads of BLAS and thresholds of malloc in this process too."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.update(before)
        for added in set(os.environ) - set(before):
            del os.environ[added]


@contextmanager
def _lost_workers(scheduler: str) -> Iterator[None]:
    """A part whose workers died again and again is one line; dask tries it on others before."""
    from concurrent.futures.process import BrokenProcessPool

    lost: list[type[BaseException]] = [BrokenProcessPool]
    with suppress(ModuleNotFoundError):
        if _parted(scheduler)[0] not in _LOCAL:
            lost.append(import_module("distributed").KilledWorker)
    try:
        yield
    except tuple(lost) as error:
        what = "workers died while they computed: they may lack memory"
        remedy = "give workers more memory, or use --scheduler threads"
        raise TaqError(problem(what, where=f"--scheduler {scheduler}", remedy=remedy)) from error
