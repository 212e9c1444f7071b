"""Pictures of a run: decoded final latents, kept in the store and written as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import TaqError
from taqstore.files.png import save_picture
from taqstore.kinds.templates import pictures_template
from taqstore.names import LATENTS, PICTURES
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import open_store
from taqstore.store.writer import StoreWriter

from ..models.adapter import fetching
from ..models.backend import backend
from ..models.load import LoadedModel, Tensor
from .dry import Clock, add_group, unknown_shares
from .groups import RUN, open_groups

# What a decoder raises that cannot be loaded, fetched or run.
_UNDECODED = (TaqError, OSError, ValueError, KeyError, RuntimeError)


def forget_pictures(writer: StoreWriter, images: Sequence[int], about: Mapping[str, Any]) -> None:
    """Put an empty group in the place of pictures whose latents are replaced, if there are any."""
    node: Any = writer.node(PICTURES)
    if node is not None:
        _open(writer, images, node["picture"].shape[1:], about, replaced={PICTURES})


def _open(
    writer: StoreWriter,
    images: Sequence[int],
    shape: Sequence[int],
    about: Mapping[str, Any],
    *,
    replaced: Collection[str] = (),
) -> GroupWriter:
    """The group; one without a picture in it makes way where it is of another size."""
    height, width, colours = shape
    template = pictures_template(
        images=images, shape=(height, width, colours), attrs={RUN: dict(about)}
    )
    return open_groups(writer, [template], Mode(resume=True), replaced=replaced, makes_way=True)[
        PICTURES
    ]


@dataclass
class Pictures:
    """Keeps pictures of images, one by one; the latents of each are flagged before.

    A decoder that cannot be had is told once, and pictures are left at that; so are PNG files that
    cannot be written.

    Parameters
    ----------
    images
        Ids of all images of the run.
    about
        What pictures of the group must agree in: model, weights and id of the latents.
    folder
        Where PNG files go; None: nowhere, the store alone has the pictures.
    mine
        Positions of the images that this process is about; None: all.
    """

    writer: StoreWriter
    model: LoadedModel
    images: Sequence[int]
    about: Mapping[str, Any]
    folder: Path | None
    outcome: Outcome
    mine: Sequence[int] | None = None
    group: GroupWriter | None = field(default=None, init=False)
    gone: bool = field(default=False, init=False)
    unwritable: bool = field(default=False, init=False)
    saved: set[int] = field(default_factory=set, init=False)

    def keep(self, position: int, latent: Tensor) -> None:
        """Decode the final latent ``(1, height, width, channel)`` of an image, and keep it."""
        pixels = None if self.gone else self._decoded(latent)
        if pixels is None:
            return
        self._save(pixels, position)
        cube = pixels.reshape(*pixels.shape[:2], -1)
        group = self._group(cube.shape)
        with group.claim((position,)) as held:
            if held and not group.written()[position]:
                size = group.put("picture", (position, 0, 0, 0), cube[None])
                group.commit([(position,)])
                self.outcome.wrote(PICTURES, size=size)

    def catch_up(self) -> None:
        """Keep pictures of images whose latents were stored by a run that kept none.

        Of those that were kept before, the PNG files are written again.
        """
        store = open_store(self.writer.location, chunks=None, checksum=True)
        latents = store[LATENTS]
        final = int(np.flatnonzero(latents["is_final"].values)[-1])
        there = set(latents["image"].values.tolist())
        done = self._done()
        for position in range(len(self.images)) if self.mine is None else self.mine:
            image = self.images[position]
            if done[position] and position not in self.saved:
                self._save(store[PICTURES]["picture"].sel(image=image).values, position)
            elif image in there and not done[position] and not self.gone:
                x = latents["x"].sel(image=image).isel(step=final).values
                self.keep(position, backend().mx.array(np.ascontiguousarray(x)[None]))
        if self.group is None and done.any():
            # Open, so that flags which others have set are closed with the store.
            self._group(store[PICTURES]["picture"].shape[1:])

    def make(self, latent: Callable[[], Tensor]) -> dict[str, GroupWriter]:
        """Make the group, for pictures like that of a latent; none where none can be had."""
        pixels = self._decoded(latent())
        if pixels is None:
            return {}
        return {PICTURES: self._group(pixels.reshape(*pixels.shape[:2], -1).shape)}

    def plan(self, plan: Plan, latent: Tensor) -> None:
        """Count pictures that would be kept, by one that is made of this latent, of noise."""
        stored = self.writer.node(LATENTS) is not None
        done = self._done() if stored else np.zeros(len(self.images), bool)
        clock, absent = Clock(), int((~done).sum())
        with fetching(False):
            pixels = self._decoded(latent) if absent else None
        if pixels is None:
            plan.group(PICTURES).done += int(done.sum())
            return
        spent, cube = clock.lap(), pixels.reshape(*pixels.shape[:2], -1)
        group = _open(self.writer, self.images, cube.shape, self.about)
        if unknown_shares([group]):
            # Of noise, which nothing compresses less than.
            group.put("picture", (0, 0, 0, 0), cube[None])
            plan.at_most.add(PICTURES)
        add_group(plan, group)
        if plan.seconds is not None:
            plan.seconds += absent * spent

    def _save(self, pixels: np.ndarray, position: int) -> None:
        """Write a PNG file; where that cannot be done it is told once, and all others go on."""
        self.saved.add(position)
        if self.folder is None:
            return
        try:
            save_picture(pixels, self.folder / f"{self.images[position]:04d}.png")
        except (TaqError, OSError) as error:
            if not self.unwritable:
                first = str(error).splitlines()[0]
                what = "PNG files left out, of which the store has the pictures"
                self.outcome.notes.append(f"{what}: {first}")
            self.unwritable = True

    def _done(self) -> np.ndarray:
        """(image,) which pictures are stored, as far as the group goes."""
        found = np.zeros(len(self.images), bool)
        store = open_store(self.writer.location)
        if PICTURES in store and store.node(PICTURES).attrs.get(RUN) == dict(self.about):
            kept = set(store[PICTURES]["image"].values.tolist())
            found[:] = [image in kept for image in self.images]
        mine = found if self.mine is None else found[list(self.mine)]
        self.outcome.count(PICTURES).skipped += (
            int(mine.sum()) - self.outcome.count(PICTURES).written
        )
        return found

    def _decoded(self, latent: Tensor) -> np.ndarray | None:
        try:
            return np.asarray(self.model.picture(latent))
        except _UNDECODED as error:
            self.gone = True
            first = (str(error).splitlines() or [type(error).__name__])[0]
            self.outcome.notes.append(f"pictures are left out, the decoder does not run: {first}")
            return None

    def _group(self, shape: tuple[int, ...]) -> GroupWriter:
        if self.group is None:
            self.group = _open(self.writer, self.images, shape, self.about)
        return self.group
