"""`adaround --rolling`: boundaries of blocks computed as they are needed, and dropped when done."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from taqstore.errors import StoreError
from taqstore.items.flags import read_group
from taqstore.kinds.float16 import as_float16
from taqstore.kinds.templates import blocks_template, pooled_conditioning_template
from taqstore.layout.item_records import Item
from taqstore.layout.template import Template
from taqstore.names import BLOCKS
from taqstore.names.boundaries import Boundary
from taqstore.run.mode import Mode
from taqstore.run.plan import Plan
from taqstore.store.group_writer import GroupWriter
from taqstore.store.groups import read_coordinate
from taqstore.store.reader import Store
from taqstore.store.writer import StoreWriter

from ..models.backend import backend
from ..models.load import Prompt, Tensor, to_numpy
from ..run.groups import RUN, open_groups
from ..run.space import check_fits, free_bytes
from .prefix import is_prefix_stream, prefix_streams
from .rolled import Rolled

POOLED = f"{BLOCKS}/pooled"
# Written samples are flagged this often, as `cache` does.
_FLAG_SECONDS = 2.0


@dataclass(frozen=True)
class Rolling:
    """Boundaries of a run in its store.

    At most two are kept of every stream: what the block at work is given, and what it puts out.
    Which these are is read off the store, so that a run that was killed goes on anywhere.

    Parameters
    ----------
    rolled
        Where they come from.
    writer, store
        The store, open for writing and for reading.
    mode
        Who is told.
    """

    rolled: Rolled
    writer: StoreWriter
    store: Store
    mode: Mode

    def streams(self, place: int) -> dict[str, str]:
        """What `open_block` calls the streams of a block, by stream."""
        return {boundary.stream: boundary.name for boundary in self.rolled.inputs_of(place)}

    def prepare(self, place: int) -> None:
        """Compute what is missing of what a block is given and puts out; drop all else.

        It goes on from the outputs of the nearest block before it that are whole, else from the
        latents. The caller holds the claim of the block.

        Raises
        ------
        TaqError
            The model fails, or a stream does not fit float16.
        """
        window = [*self.rolled.inputs_of(place), *self.rolled.outputs_of(place)]
        whole = all(map(self._is_whole, window))
        source = None if whole else self._source(place)
        kept = [] if source is None else self.rolled.outputs_of(source)
        streams = prefix_streams(self.rolled.blocks[place], set=self.rolled.set)
        self._keep_only({b.name for b in (*window, *kept)} | {*streams.values()})
        if not whole:
            groups = {b: self.writer.group(self._template(b)) for b in window}
            self._refresh([b.path for b in (*window, *kept)])
            self._fill(place, groups, source)
        self._refresh([POOLED, *(boundary.path for boundary in window)])
        self.mode.progress.advance(self.rolled.blocks[place].name, len(self.rolled) * whole)

    def add_to(self, plan: Plan, places: Sequence[int]) -> None:
        """Tell a plan what boundaries of these blocks take at once, at most; they are dropped."""
        window = self._largest(places)
        for boundary in window:
            counts = plan.group(boundary.path)
            counts.to_write, counts.bytes = len(self.rolled), self._bytes([boundary])

    def check_space(self, places: Sequence[int]) -> None:
        """Refuse boundaries that do not fit where the store lies.

        Raises
        ------
        StoreError
            More would be kept at once than is free.
        """
        needed = self._bytes(self._largest(places))
        location, what = self.writer.location, "bytes of boundaries"
        free = free_bytes(location)
        if free is not None:
            mine = dict.fromkeys(b for place in places for b in self._kept(place))
            free += self._bytes(filter(self._is_whole, mine))
        remedy = "choose fewer --images or --num-samples, or a larger --stride"
        check_fits(needed, free, location, what=what, remedy=remedy)

    def _largest(self, places: Sequence[int]) -> list[Boundary]:
        """The boundaries of these blocks that take most at once."""
        return max(map(self._kept, places), key=self._bytes, default=[])

    def _kept(self, place: int) -> list[Boundary]:
        """What is kept while a block is at work: its window, and what that is computed from."""
        before = self.rolled.outputs_of(place - 1) if place else []
        window = [*self.rolled.inputs_of(place), *self.rolled.outputs_of(place)]
        return list(dict.fromkeys([*before, *window]))

    def _bytes(self, boundaries: Iterable[Boundary]) -> int:
        return len(self.rolled) * sum(self.rolled.shape_of(b).nbytes for b in boundaries)

    def finish(self) -> None:
        """Drop what is left: no block needs it any more."""
        self._keep_only(())
        others = [p for p in self.writer.root_record().groups if p.startswith(f"{BLOCKS}/")]
        if others == [POOLED]:
            self.writer.drop([POOLED])
            self._refresh([POOLED])

    def labels(self, stream: str) -> Any:
        """A group with the coordinates that all boundaries have."""
        paths = (b.path for i in range(len(self.rolled.blocks)) for b in self.rolled.inputs_of(i))
        return self.store[next(path for path in paths if path in self.store)]

    def _source(self, place: int) -> int | None:
        """The nearest block before it whose outputs are all there."""
        for before in reversed(range(place)):
            if all(map(self._is_whole, self.rolled.outputs_of(before))):
                return before
        return None

    def _is_whole(self, boundary: Boundary) -> bool:
        mask = self._mask(boundary)
        return mask is not None and bool(mask[self.rolled.found.seen].all())

    def _mask(self, boundary: Boundary) -> np.ndarray | None:
        """Which samples are there; None where it is not, is damaged, or is of other samples."""
        root, found = self.writer.root_record(), self.rolled.found
        if boundary.path not in root.groups:
            return None
        try:
            items = read_group(self.writer.backend, boundary.path, uuid=root.uuid)
            node = self.writer.node(boundary.path)
            if items is None or node is None:
                return None
            labels = [read_coordinate(node, name).tolist() for name in ("image", "step")]
        except StoreError:
            return None
        same = labels == [list(found.images), list(found.steps)]
        return items.mask if same and node.attrs.get(RUN) == found.summary() else None

    def _keep_only(self, names: Collection[str]) -> None:
        """Drop every other boundary of this weight set, what a kill left of one included."""
        there = self.writer.backend.names(BLOCKS)
        dropped = [
            f"{BLOCKS}/{name}"
            for name in there
            if self._is_own(name) and (name not in names or self._is_unlike(name))
        ]
        if dropped:
            self.writer.drop(dropped)
            self._refresh(dropped)

    def _is_own(self, name: str) -> bool:
        boundary = Boundary.parse(name)
        if boundary is None:
            return is_prefix_stream(name, set=self.rolled.set)
        return boundary.set == self.rolled.own

    def _is_unlike(self, name: str) -> bool:
        boundary = Boundary.parse(name)
        return boundary is not None and self._mask(boundary) is None

    def _template(self, boundary: Boundary) -> Template:
        found, known = self.rolled.found, self.rolled.shape_of(boundary)
        text = {"text_tokens": self.rolled.text_tokens} if boundary.stream == "uni" else {}
        return blocks_template(
            boundary.name,
            images=found.images,
            steps=found.steps,
            sigmas=found.sigmas,
            timesteps=found.timesteps,
            boundaries=[boundary.index],
            shape=known.shape,
            attrs={RUN: found.summary(), "singleton_axis": 2, **text},
            dtype=known.dtype,
        )

    def _pooled(self) -> GroupWriter:
        found = self.rolled.found
        values = to_numpy(self.rolled.first.conditioning.pooled)
        template = pooled_conditioning_template(
            images=found.images,
            shape=values.shape,
            dtype=values.dtype.name,
            attrs={RUN: found.summary()},
        )
        return open_groups(self.writer, [template], Mode(resume=True), makes_way=True)[POOLED]

    def _fill(self, place: int, groups: dict[Boundary, GroupWriter], source: int | None) -> None:
        """Write the missing samples of a block's inputs and outputs, flagging them in between."""
        found, pooled, name = self.rolled.found, self._pooled(), self.rolled.blocks[place].name
        self._refresh([POOLED])
        flagged, waiting = time.monotonic(), {boundary: list[Item]() for boundary in groups}
        for position in found.order:
            done = {boundary: group.written()[position] for boundary, group in groups.items()}
            wanted = found.seen[position]
            missing = wanted & ~np.all(list(done.values()), axis=0)
            self.mode.progress.advance(name, int((wanted & ~missing).sum()))
            prompt = self._prompt(position, pooled, source) if missing.any() else None
            for step in map(int, np.flatnonzero(missing)):
                assert prompt is not None
                at = (position, step)
                tensors = self.rolled.forward(
                    place, at, prompt, source=source, given=dict(self._given(source, at))
                )
                for boundary, group in groups.items():
                    if not done[boundary][step]:
                        self._write(boundary, group, at, tensors[boundary])
                        waiting[boundary].append(at)
                self.mode.progress.advance(f"{name}: outputs of {found.word} {position}")
                if time.monotonic() - flagged >= _FLAG_SECONDS:
                    _flag(groups, waiting)
                    flagged = time.monotonic()
        _flag(groups, waiting)

    def _prompt(self, position: int, pooled: GroupWriter, source: int | None) -> Prompt:
        """Conditioning of an image: kept in the store once it was encoded, text left out."""
        found, model = self.rolled.found, self.rolled.model
        image, first, schedule = found.images[position], self.rolled.first, self.rolled.schedule
        kept = pooled.written()[position]
        if source is not None and kept:
            mx, dtype = backend().mx, model.activation_dtype
            values = self.store[POOLED]["pooled_conditioning"].sel(image=image).values
            known = replace(first.conditioning, pooled=mx.array(values).astype(dtype))
            return model.prepare(known, schedule.timesteps)
        prompt = first if position == 0 else found.prepare(model, image, schedule)
        if not kept:
            values = to_numpy(prompt.conditioning.pooled)[None]
            pooled.put("pooled_conditioning", (position, 0, 0), values)
            pooled.commit([(position,)])
        return prompt

    def _given(self, source: int | None, at: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
        """Outputs of the block that a sample goes on from, by stream, as the model made them."""
        mx, found = backend().mx, self.rolled.found
        for boundary in [] if source is None else self.rolled.outputs_of(source):
            x = self.store[boundary.path]["x"].sel(
                image=found.images[at[0]], step=found.steps[at[1]], boundary=boundary.index
            )
            known = self.rolled.shape_of(boundary)
            values, dtype = known.read(x.values), getattr(mx, known.dtype)
            yield boundary.stream, mx.array(values)[:, :, None].astype(dtype)

    def _write(
        self, boundary: Boundary, group: GroupWriter, at: tuple[int, int], tensor: Tensor
    ) -> None:
        found, values = self.rolled.found, to_numpy(tensor)
        label = f"{found.word} {found.images[at[0]]}, step {found.steps[at[1]]}"
        what = f"boundary {boundary.index} of stream {boundary.stream} at {label}"
        # Kept as the model made it, which the block after it needs, and read in float16.
        as_float16(values, what, remedy="leave its blocks out with --blocks")
        exact = self.rolled.shape_of(boundary).stored(values[:, :, 0])[None, None, None]
        group.put("x", (*at, 0, 0, 0, 0), exact)

    def _refresh(self, paths: Collection[str]) -> None:
        self.store.refresh(*paths)


def _flag(groups: dict[Boundary, GroupWriter], waiting: dict[Boundary, list[Item]]) -> None:
    """Flag what is written and forget it."""
    for boundary, items in waiting.items():
        if items:
            groups[boundary].commit(items)
            items.clear()
