"""`--with STORE`: several stores read as one, by every command that reads one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from taqstore.cli.common import say
from taqstore.cli.completed import StoreAddress

if TYPE_CHECKING:
    from taqstore.store.reader import Store

_KEPT = "taqstore.several."


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta[f"{_KEPT}{param.name}"] = value


_OPTIONS = (
    click.option(
        "--with",
        "others",
        multiple=True,
        type=StoreAddress(),
        metavar="STORE",
        expose_value=False,
        callback=_keep,
        help="Read this store as one with STORE, as taqstore merge would make them. Repeatable.",
    ),
    click.option(
        "--renumber",
        is_flag=True,
        expose_value=False,
        callback=_keep,
        help="Number images of each --with STORE after those before it.",
    ),
)


def with_others(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options, for a command that opens its store with `open_asked`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def addresses(store: str) -> tuple[str, ...]:
    """Addresses of all stores that the running command reads as one."""
    return store, *(click.get_current_context().meta.get(f"{_KEPT}others") or ())


def open_asked(store: str, **way: Any) -> Store:
    """The store that the running command reads, with all that is to be read as one with it.

    Parameters
    ----------
    way
        Options of `open_store`.

    Raises
    ------
    click.UsageError
        Images are to be numbered anew of one store.
    """
    from taqstore.together.opening import open_store

    every = addresses(store)
    renumber = bool(click.get_current_context().meta.get(f"{_KEPT}renumber"))
    if renumber and len(every) == 1:
        raise click.UsageError("--renumber goes with --with STORE")
    if len(every) == 1:
        return open_store(store, **way)
    opened = open_store(every, renumber=renumber, **way)
    for note in getattr(opened, "notes", ()):
        say(f"note: {note}")
    return opened
