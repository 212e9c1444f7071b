"""Trajectories kept in a store: what is there is read, what is not is run and kept, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from taqstore.errors import StoreError, problem
from taqstore.kinds.trajectories import (
    AVERAGE_BITS,
    DIGEST,
    FLOAT,
    VARIANT,
    name_of,
    path_of,
    trajectories_template,
)
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter

from ..models.sampling import Schedule
from ..run.groups import RUN, open_groups
from .asked import Asked, numbers_of


@dataclass(frozen=True)
class Sampled:
    """One trajectory.

    Parameters
    ----------
    x
        float32 ``(step + 1, height, width, channel)``: before each model call, and the result.
    output
        float32 ``(step, height, width, channel)``: the guided output ``(x - denoised) / sigma``.
    """

    x: np.ndarray
    output: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.x.nbytes + self.output.nbytes


@dataclass(frozen=True)
class Kept:
    """Trajectories of one model in `trajectories/<name>`; make it with `open_kept`.

    Parameters
    ----------
    path
        Of the group.
    asked
        Images, in the order of places.
    """

    writer: StoreWriter
    path: str
    asked: Asked
    group: GroupWriter
    outcome: Outcome = field(default_factory=Outcome)

    def absent(self) -> list[int]:
        """Places that are not whole."""
        return np.flatnonzero(~self.group.written()).tolist()

    def at(self, place: int) -> Sampled:
        """The trajectory at a place, which is whole; memory is that of one."""
        store = open_store(self.writer.location, chunks=None, checksum=True)
        one = store[self.path].sel(image=self.asked.images[place])
        return Sampled(np.array(one["x"].values), np.array(one["output"].values[:-1]))

    def make(self, place: int, run: Callable[[], Sampled]) -> Sampled:
        """The trajectory at a place: as it is kept, or run and kept.

        It is run also where another process is at it, which keeps it.

        Raises
        ------
        StoreError
            The store cannot be written, or another process took the image's number meanwhile.
        """
        made = self.make_unheld(place, run)
        return run() if made is None else made

    def make_unheld(self, place: int, run: Callable[[], Sampled]) -> Sampled | None:
        """As `make`; None where another process is at it."""
        with self.group.claim((place,)) as held:
            if self.group.written()[place]:
                self.outcome.count(self.path).skipped += 1
                return self.at(place)
            if not held:
                return None
            made = run()
            self._keep(place, made)
        return made

    def take(self, store: Store) -> None:
        """Take over what another store has of these images."""
        if self.path not in store:
            return
        there = store[self.path]
        numbers = numbers_of(there)
        for place in self.absent():
            image = numbers.get(self.asked.identity(place))
            if image is not None:
                one = there.sel(image=image)
                self._keep(place, Sampled(one["x"].values, one["output"].values[:-1]))
        self.outcome.groups.clear()  # nothing was made

    def _keep(self, place: int, made: Sampled) -> None:
        last = np.full((1, *made.output.shape[1:]), np.nan, np.float32)
        values = {"x": made.x, "output": np.concatenate([made.output, last])}
        start = (place, 0, 0, 0, 0)
        size = sum(
            self.group.put(name, start, [step[None, None] for step in steps])
            for name, steps in values.items()
        )
        self._check_number(place)
        self.group.commit([(place,)])
        self.outcome.wrote(self.path, size=size)

    def _check_number(self, place: int) -> None:
        """Refuse to flag an image whose number another process gave to another one."""
        asked = self.asked
        numbers = numbers_of(self.writer.node(self.path))
        if numbers.get(asked.identity(place)) != asked.images[place]:
            what = f"another process judges another image under number {asked.images[place]}"
            where = f"{self.writer.location} {self.path}"
            raise StoreError(problem(what, where=where, remedy="run again"))


def open_kept(
    writer: StoreWriter,
    asked: Asked,
    schedule: Schedule,
    *,
    shape: tuple[int, int, int],
    run: Mapping[str, Any],
    variant: str = FLOAT,
    digest: str = "",
    average_bits: float | None = None,
    stored: Store | None = None,
) -> Kept:
    """Open the trajectories of a model for these images, or begin them.

    Parameters
    ----------
    shape
        Height, width and channels of a latent.
    run
        Settings that all trajectories of the group share.
    variant, digest
        What runs, and its SHA-256, which gives the group its name; none: the model as it is.
    average_bits
        Of a weight of the model in what runs, where that is known.
    stored
        The store that is judged: where another is written in its place, what it has is taken over.

    Raises
    ------
    LayoutError
        There are such of another model or schedule.
    """
    sigmas, timesteps = schedule.arrays()
    known = {} if average_bits is None else {AVERAGE_BITS: average_bits}
    template = trajectories_template(
        name_of(digest) if digest else FLOAT,
        images=asked.images,
        prompts=asked.prompts,
        seeds=asked.seeds,
        cfg_weight=asked.cfg_weight,
        sigmas=sigmas,
        timesteps=timesteps,
        shape=shape,
        attrs={RUN: dict(run), VARIANT: variant, DIGEST: digest, **known},
    )
    group = open_groups(writer, [template], Mode(resume=True), makes_way=True)[template.path]
    kept = Kept(writer, template.path, asked, group)
    if stored is not None and not stored.location.same_as(writer.location):
        kept.take(stored)
    return kept


def listed(writer: StoreWriter) -> Any:
    """What `trajectories/float` lists, whole or not; None where there is no such group."""
    return writer.node(path_of(FLOAT))
