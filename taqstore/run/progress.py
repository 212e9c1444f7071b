"""Whom a run tells how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of a run: how much is to come, then of each part that is done.

    What is counted is the run's affair, bytes or forwards; it is the same in both calls.
    """

    def start(self, total: int) -> None:
        """Say how much is to come."""
        ...

    def advance(self, label: str, amount: int = 1) -> None:
        """Say that `amount` more is done, and what it was."""
        ...


class Silent:
    """Progress that nobody follows."""

    def start(self, total: int) -> None:
        """Say nothing."""

    def advance(self, label: str, amount: int = 1) -> None:
        """Say nothing."""


SILENT: Progress = Silent()
