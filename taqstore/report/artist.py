"""Who draws the pictures of a report: a thread of this process, or a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import dask.config
import xarray as xr

from taqstore.plot.apart import is_worth
from taqstore.query.sites import Groups
from taqstore.report.findings import Findings, Plan
from taqstore.report.judged import gather_judged, judged
from taqstore.report.page import Picture, Section
from taqstore.run.apart import apart
from taqstore.run.dealing import beside
from taqstore.run.extras import extra
from taqstore.store.reader import Store

Drawn: TypeAlias = tuple[Section, list[str]]
"""A section with its figures, and notes on those that could not be drawn."""


@dataclass(frozen=True)
class Artist:
    """Gives pictures to whoever draws them, in the order they are asked for.

    Parameters
    ----------
    store, groups, plan
        What the report is of; the groups of its source as they are stored.
    submit
        Gives a call away, as that of an `Executor`.
    begun
        The section of what trajectories say, where another process is at it already.
    pictures
        Whether there are to be any.
    """

    store: Store
    groups: Mapping[str, xr.Dataset]
    plan: Plan
    submit: Callable[..., Future[Any]]
    begun: Future[Drawn | None] | None
    pictures: bool

    def draw(self, section: Section, known: Findings) -> Future[Drawn]:
        """Begin the figures of a section, from what is known."""
        told = Findings(known.results, known.missing)  # tables are made anew in less time
        return self.submit(_drawn, section, self.groups, self.plan, told, self.pictures)

    def judge(self) -> Future[Drawn]:
        """The section of what trajectories say; what it takes is read here, if nobody has."""
        found = None if self.begun is None else self.begun.result()
        if found is not None:
            done: Future[Drawn] = Future()
            done.set_result(found)
            return done
        with one_at_a_time(self.store):
            whole = gather_judged(self.store, self.plan)
        return self.submit(_drawn, judged(whole), self.store, self.plan, whole, self.pictures)


@contextmanager
def artist(
    store: Store,
    groups: Mapping[str, xr.Dataset],
    plan: Plan,
    *,
    pictures: bool,
    processes: bool,
) -> Iterator[Artist]:
    """An artist for a report; at the end all is drawn.

    Parameters
    ----------
    processes
        Whether it may be another process, where that is worth it.
    """
    far = pictures and processes and is_worth(store, groups)
    with apart() if far else beside() as submit:
        begun = submit(_judged_of, store.opener(), store.digest, plan) if far else None
        yield Artist(store, groups, plan, submit, begun, pictures)


def one_at_a_time(store: Store) -> AbstractContextManager[object]:
    """Blocks of a disk are read by one thread: another draws, and each has its own in memory."""
    return nullcontext() if store.remote else dask.config.set(num_workers=1)


def _judged_of(opener: Callable[[], Store], digest: str, plan: Plan) -> Drawn | None:
    """The section of what trajectories say, of a store opened anew; None if that has grown."""
    store = opener()
    if store.digest != digest:
        return None
    with one_at_a_time(store):
        whole = gather_judged(store, plan)
        return _drawn(judged(whole), store, plan, whole, True)


def _drawn(
    section: Section, groups: Groups, plan: Plan, findings: Findings, pictures: bool
) -> Drawn:
    """The section with its figures, or with a note where they cannot be drawn, and such notes."""
    if not pictures:
        return section, []
    notes: list[str] = []
    made: tuple[Picture, ...] = ()
    with extra(f"the figures of {section.key!r}", notes):
        from taqstore.report.pictures import draw  # needs matplotlib, which the numbers do not

        made = draw(groups, section, plan, findings)
    return replace(section, pictures=made, notes=(*section.notes, *notes)), notes
