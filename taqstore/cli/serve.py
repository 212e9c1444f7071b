"""`taqstore serve`."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click

from taqstore.cli import BASE_WEIGHTS
from taqstore.cli.common import complain, say
from taqstore.cli.completed import StoreAddress
from taqstore.cli.talk import Command
from taqstore.errors import TaqError, problem
from taqstore.export.packed.layouts import MLX

if TYPE_CHECKING:
    from taqstore.serve.served.service import Service
    from taqstore.store.reader import Store

_EXTRA = "pip install 'taqstore[serve]'"
_AUTO = "auto"
_BACKLOG = 256
_FIRST_PICTURE = 2.0
_REFUSED_PORTS = {
    errno.EADDRINUSE: "the port is taken",
    errno.EACCES: "this user may not listen on the port",
}


@click.command("serve", cls=Command)
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=StoreAddress())
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--token",
    envvar="TAQSTORE_TOKEN",
    show_envvar=True,
    help="Answer only who knows this; auto makes one and prints the address with it.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Another name that the service is called by; may be given again.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Pages of this origin may read it too (CORS): https://host:port, or *.",
)
def command(
    stores: tuple[str, ...],
    host: str,
    port: int,
    opened: bool,
    token: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
) -> None:
    """Serve STORE over HTTP, read-only: as Zarr, as JSON and CSV, and as a page to look at.

    The address is printed on stdout once it answers; Ctrl-C ends it. It sees stores grow while
    writers run. Without --host it answers this machine alone; elsewhere it wants a token.
    """
    _check_origins(origins)
    server_module, app_module = _installed()
    secret = _secret(token)
    from taqstore.serve.served.service import Service

    service = Service(stores, base=_parameters)
    family, number = _place(host, port)
    own = ipaddress.ip_address(number)
    if not own.is_loopback and not secret:
        what = "who reaches this machine could read the stores"
        raise click.UsageError(f"{what}; add --token auto, or leave --host out")
    called = socket.gethostname() if own.is_unspecified else host
    with _listening(family, number, port) as listener:
        rules = app_module.Rules(
            hosts={*app_module.LOCAL, called, number, *hosts},
            any_address=own.is_unspecified,
            token=secret,
            origins=origins,
        )
        address = f"http://{_bracketed(called)}:{listener.getsockname()[1]}/"
        shown = f"{address}?token={quote(secret, safe='')}" if token == _AUTO else address
        ended = threading.Event()
        ready = partial(_ready, service, shown, opened, ended)
        server = server_module.Server(app_module.application(service, rules), ready=ready)
        with suppress(KeyboardInterrupt):  # its ordinary end
            server.run([listener])
        ended.set()


def _installed() -> tuple[Any, Any]:
    try:
        from taqstore.serve import app
        from taqstore.serve.http import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "h11", "anyio"):
            raise
        what = f"serve needs {error.name}, which is not installed"
        raise TaqError(problem(what, remedy=_EXTRA)) from error
    return server, app


def _secret(token: str | None) -> str:
    from taqstore.serve.http.secret import SHORTEST, make_token

    if token == _AUTO:
        return make_token()
    if token is not None and len(token) < SHORTEST:
        what = f"a token of less than {SHORTEST} characters is guessed"
        raise click.UsageError(f"{what}; --token auto makes one")
    return token or ""


def _check_origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        parts = urlsplit(origin)
        whole = parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == origin
        if origin != "*" and not (whole and parts.netloc):
            raise click.UsageError(f"no origin: {origin!r}; it is like https://host:port, or *")


def _place(host: str, port: int) -> tuple[int, str]:
    """The family and the number of an address.

    Raises
    ------
    TaqError
        Nobody knows it.
    """
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        what, remedy = "no address of this machine", "leave --host out"
        raise TaqError(problem(what, where=f"{host}:{port}", remedy=remedy)) from error
    return family, str(place[0]).partition("%")[0]


def _listening(family: int, number: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    TaqError
        The port is taken, or this machine has no such address.
    """
    try:
        return socket.create_server((number, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        what, remedy = os.strerror(error.errno or 0), "leave --host out"
        if error.errno in _REFUSED_PORTS:
            what = _REFUSED_PORTS[error.errno]
            remedy = "choose another with --port; --port 0 takes a free one"
        raise TaqError(problem(what, where=f"{number}:{port}", remedy=remedy)) from error


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _ready(service: Service, address: str, opened: bool, ended: threading.Event) -> None:
    """Say where it answers; what the first question needs is fetched meanwhile."""
    click.echo(address)
    say(f"serving {', '.join(service.names)}; Ctrl-C ends it")
    threading.Thread(target=_warm, args=(service, ended), daemon=True).start()
    if opened:
        import webbrowser

        # Some browsers stay in the foreground.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def _warm(service: Service, ended: threading.Event) -> None:
    try:
        service.open()
        # The first picture needs no histograms, and comes sooner alone.
        ended.wait(_FIRST_PICTURE)
        service.hold()
    except TaqError as error:  # said to who asks, too
        complain(str(error))
    except Exception:  # Python that ends takes pools of threads away from who is at work
        if not ended.is_set():
            raise


def _parameters(store: Store) -> Mapping[str, Any]:
    """Parameters of the model that a store names, of this package or of the hub's cache."""
    # A server fetches nothing: what is not there is told to be missing.
    os.environ["HF_HUB_OFFLINE"] = "1"
    found: Mapping[str, Any] = import_module(BASE_WEIGHTS).base_weights(store, MLX).tensors
    return found
