"""Where lazy results are computed: `--scheduler`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from taqstore.asked import meant
from taqstore.cli.completed import Named
from taqstore.errors import TaqError, problem

_LOCAL = ("threads", "synchronous", "processes")
_CLUSTER = "distributed"
_IN_PROCESS = ("threads", "synchronous")
CONNECT_SECONDS = 10


def _known(context: click.Context, option: click.Parameter, name: str) -> str:
    if name in (*_LOCAL, _CLUSTER) or re.match(r"[a-z+]+://.", name):
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
    help="threads, synchronous, processes, distributed (workers on this machine), or the address "
    "of a running dask scheduler.",
)


@contextmanager
def computing(scheduler: str, store: str) -> Iterator[None]:
    """Compute what is computed inside on a scheduler; results do not depend on which.

    Parameters
    ----------
    scheduler
        A value of `scheduler_option`.
    store
        Address of the store that is read, which workers open for themselves.

    Raises
    ------
    TaqError
        The store is in this process's memory and the workers are not; dask.distributed is not
        installed; nothing answers at the address.
    """
    import dask.config

    if scheduler not in _IN_PROCESS and store.startswith("memory://"):
        what = "other processes cannot read a store in this one's memory"
        raise TaqError(problem(what, where=store, remedy="use --scheduler threads"))
    if scheduler in _LOCAL:
        with dask.config.set(scheduler=scheduler):
            yield
        return
    with _client(scheduler):
        yield


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    try:
        distributed: Any = import_module("distributed")
    except ModuleNotFoundError as error:
        remedy = "pip install 'taqstore[distributed]'"
        what = f"--scheduler {scheduler} needs dask.distributed"
        raise TaqError(problem(what, remedy=remedy)) from error
    if scheduler == _CLUSTER:
        with (
            distributed.LocalCluster(dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        what = "no dask scheduler answers"
        raise TaqError(problem(what, where=scheduler, found=str(error))) from error
    with client:
        yield client
