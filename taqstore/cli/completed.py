"""Words that a shell completes: of a table, of the store that was named, or the store itself.

Here they are only offered. What does not fit the store is refused where the store is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from taqstore.metadata.glance import Glance, around, looks_like_store

OPEN = "open"
"""Kind of a completion that is not whole: a folder to go through, the first half of `DIM=HOW`."""

Words = Callable[["Asked"], Iterable[str]]


class Asked:
    """What a vocabulary is asked for: the arguments so far, and the store they name.

    Parameters
    ----------
    ctx
        Of the command that is typed.
    typed
        What is there of the word already.
    store
        Name of the argument that is the store.
    """

    def __init__(self, ctx: click.Context, typed: str = "", *, store: str = "store") -> None:
        self.ctx, self.typed, self._store = ctx, typed, store

    def given(self, name: str) -> Any:
        """The value of a parameter that was typed already, by its name in Python."""
        return self.ctx.params.get(name)

    @property
    def store(self) -> Glance:
        """Names of the store; none where it is not typed yet, or cannot be looked at."""
        address = self.given(self._store)
        if isinstance(address, tuple):  # of several stores, the first
            address = next(iter(address), None)
        # A shell hands words over as they are typed.
        here = os.path.expandvars(os.path.expanduser(address)) if isinstance(address, str) else ""
        return (Glance.at(here) if here else None) or Glance(Path())


class Named(click.types.StringParamType):
    """A text, completed from a vocabulary.

    Parameters
    ----------
    words
        The vocabulary; of a word that ends with ``=`` more is to be typed.
    commas
        Whether several may be given, with commas between them.
    store
        Name of the argument that is the store.
    """

    def __init__(self, words: Words, *, commas: bool = False, store: str = "store") -> None:
        self.words, self.store, self._commas = words, store, commas

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Words that begin as what was typed behind the last comma."""
        before, comma, typed = incomplete.rpartition(",") if self._commas else ("", "", incomplete)
        found = dict.fromkeys(self.words(Asked(ctx, typed, store=self.store)))
        return [
            CompletionItem(f"{before}{comma}{word}", type=OPEN if word.endswith("=") else "plain")
            for word in found
            if word.startswith(typed) and word not in before.split(",")
        ]


class StoreAddress(click.types.StringParamType):
    """A store: a folder, or a URL, which is left alone."""

    is_address = True

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Stores, and folders to go through; nothing inside a store."""
        if "://" in incomplete:
            return []
        head, name = os.path.split(incomplete)
        folder = os.path.expandvars(os.path.expanduser(head)) or "."
        if around(folder) is not None:
            return []
        return list(_folders(folder, name, head))


def _folders(folder: str, name: str, head: str) -> Iterator[CompletionItem]:
    try:
        with os.scandir(folder) as entries:
            every = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return
    for one in every:
        if (
            one.startswith(name)
            and one.isprintable()
            and (not one.startswith(".") or name.startswith("."))
        ):
            shown = os.path.join(head, one)
            if looks_like_store(os.path.join(folder, one)):
                yield CompletionItem(shown)
            else:
                yield CompletionItem(f"{shown}/", type=OPEN)
