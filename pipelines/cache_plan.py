"""`cache --plan`: what cached blocks of any model would take, told by its templates alone.

Neither the model nor a store has to be there. Bytes and objects of items are exact; requests are
those that writing items takes, beside some hundred for documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from taqstore.asked import word_of
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.items.copies import copy_coordinates
from taqstore.kinds.templates import blocks_template, pooled_conditioning_template
from taqstore.layout.item_bytes import item_bytes
from taqstore.layout.item_records import ItemLayout, mask_chunk, record_chunk
from taqstore.layout.template import Template
from taqstore.metadata.staging import Staging
from taqstore.names import STREAMS
from taqstore.place.remote.objects import PART
from taqstore.store.groups import create_arrays

from .model_shapes import SHAPES as SHAPES
from .model_shapes import ModelShape
from .model_shapes import find_shape as find_shape

# A claim, which the flag takes the place of; read when it is seen, and when flags are closed.
_PUTS_OF_FLAG, _GETS_OF_FLAG = 2, 2
# Names of a listing, and keys of a request that deletes.
_LISTED = 1000


@dataclass(frozen=True)
class Wanted:
    """What would be cached.

    Parameters
    ----------
    images, steps, stride
        How many images of how many steps, and every how many steps are kept.
    chosen
        Blocks; None: all.
    size, frames
        In pixels, and of a video; None: the model's own.
    """

    images: int = 1000
    steps: int = 50
    stride: int = 5
    chosen: Sequence[str] | None = None
    size: tuple[int, int] | None = None
    frames: int | None = None

    @property
    def kept_steps(self) -> int:
        """Steps of an image that are kept."""
        return -(-self.steps // self.stride)


@dataclass
class Requests:
    """Requests to an object store."""

    put: int = 0
    get: int = 0
    list: int = 0
    delete: int = 0

    def add(self, items: int, size: int, *, claimed: bool = True) -> None:
        """Count what writing items of one shard of so many bytes takes.

        Boundaries that roll are not `claimed`: their block is.
        """
        self.put += items * (_puts(size) + (_PUTS_OF_FLAG if claimed else 1))
        self.get += items * _GETS_OF_FLAG
        self.list += -(-items // _LISTED)
        self.delete += -(-items // _LISTED)

    def cost(self, put: float, get: float) -> float:
        """By prices of a million; listings cost what puts do, deletions nothing."""
        return ((self.put + self.list) * put + self.get * get) / 1e6


@dataclass(frozen=True)
class GroupSize:
    """One group: its items, bytes of one, bytes of all, and objects once flags are closed."""

    path: str
    items: int
    item_bytes: int
    objects: int

    @property
    def bytes(self) -> int:
        """Of all items."""
        return self.items * self.item_bytes


@dataclass
class Kept:
    """What lies in a store, and what putting it there takes."""

    groups: list[GroupSize] = field(default_factory=list)
    requests: Requests = field(default_factory=Requests)

    @property
    def bytes(self) -> int:
        """Of all groups."""
        return sum(group.bytes for group in self.groups)

    @property
    def objects(self) -> int:
        """Of all groups."""
        return sum(group.objects for group in self.groups)


@dataclass(frozen=True)
class CachePlan:
    """What caching takes, and what it takes where boundaries roll: at once, and in requests."""

    model: str
    wanted: Wanted
    forwards: int
    whole: Kept
    rolling: Kept


def plan_cache(shape: ModelShape, wanted: Wanted) -> CachePlan:
    """What blocks of a model take.

    Raises
    ------
    MisuseError
        A number below 1, a size of no whole tokens, or frames of a model that makes no video.
    MissingError
        The model has no such block.
    """
    size, frames = wanted.size or shape.size, wanted.frames or shape.frames
    if shape.frames == 1 < frames:
        what, remedy = f"{shape.name} makes no video", "leave --frames out"
        raise MisuseError(problem(what, found=f"{frames} frames", remedy=remedy))
    counts = (wanted.images, wanted.steps, wanted.stride, frames)
    if min(counts) < 1 or any(n % 16 or n < 16 for n in size):
        what = "images, steps and frames must be at least 1, sizes multiples of 16 pixels"
        raise MisuseError(problem(what, found=f"{counts}, {size[0]}x{size[1]}"))
    image = shape.image_tokens(size, frames)
    blocks = shape.blocks
    for name in wanted.chosen or ():
        word_of(name, [block.name for block in blocks], "block")
    chosen = [b for b in blocks if wanted.chosen is None or b.name in wanted.chosen]
    if not chosen:
        raise MissingError(problem("no block is chosen"))
    found = {end for block in chosen for end in shape.boundaries(block)}
    every = _Sizes(shape, wanted, image)
    return CachePlan(
        shape.name,
        wanted,
        wanted.images * wanted.kept_steps,
        every.whole(found),
        every.rolling([sorted({*shape.boundaries(block)}) for block in chosen]),
    )


@dataclass(frozen=True)
class _Sizes:
    shape: ModelShape
    wanted: Wanted
    image: int

    def whole(self, boundaries: Iterable[tuple[str, int]]) -> Kept:
        """All boundaries, a shard of an (image, step) for each stream."""
        kept, found = Kept(), sorted(boundaries)
        for stream in STREAMS:
            indices = [index for name, index in found if name == stream]
            if indices:
                _add(kept, self._stream(stream, indices, "float16"))
        return self._with_pooled(kept)

    def rolling(self, windows: Sequence[Sequence[tuple[str, int]]]) -> Kept:
        """What is kept at once at most, and the requests of all blocks."""
        most, requests = Kept(), Requests()
        before: Sequence[tuple[str, int]] = ()
        written = set[tuple[str, int]]()
        sized = self._alone({end for window in windows for end in window})
        for window in windows:
            at_once = Kept([sized[end] for end in dict.fromkeys([*before, *window])])
            most = max(most, at_once, key=lambda kept: kept.bytes)
            for end in set(window) - written:
                requests.add(sized[end].items, sized[end].item_bytes, claimed=False)
            # What a block is computed from is read once.
            requests.get += sum(sized[end].items for end in window if end in written)
            written |= set(window)
            before = [end for end in window if end[1] > min(index for _, index in window)]
        return self._with_pooled(Kept(most.groups, requests), claimed=False)

    def _alone(self, ends: Iterable[tuple[str, int]]) -> dict[tuple[str, int], GroupSize]:
        """Each boundary in a group of its own; those of a stream differ in their names alone."""
        found, of_stream = dict[tuple[str, int], GroupSize](), dict[str, GroupSize]()
        for stream, index in ends:
            template = self._stream(f"{stream}.boundary-{index}", [index], self.shape.dtype)
            if stream not in of_stream:
                of_stream[stream] = _size(template)
            found[stream, index] = replace(of_stream[stream], path=template.path)
        return found

    def _stream(self, name: str, boundaries: Sequence[int], dtype: str) -> Template:
        wanted = self.wanted
        numbers = np.arange(0, wanted.steps, wanted.stride)
        return blocks_template(
            name,
            images=range(wanted.images),
            steps=numbers,
            sigmas=np.ones(len(numbers), np.float32),
            timesteps=np.ones(len(numbers), np.float16),
            boundaries=boundaries,
            shape=self.shape.shape(name.partition(".")[0], self.image),
            attrs={},
            dtype=dtype,
        )

    def _with_pooled(self, kept: Kept, *, claimed: bool = True) -> Kept:
        if self.shape.pooled:
            template = pooled_conditioning_template(
                images=range(self.wanted.images),
                shape=(self.shape.rows, self.shape.pooled),
                dtype="float16" if self.shape.dtype == "float16" else "float32",
                attrs={},
            )
            _add(kept, template, claimed=claimed)
        return kept


def _add(kept: Kept, template: Template, *, claimed: bool = True) -> None:
    size = _size(template)
    kept.groups = [*kept.groups, size]
    kept.requests.add(size.items, size.item_bytes, claimed=claimed)


def _size(template: Template) -> GroupSize:
    grid = tuple(template.sizes[dim] for dim in template.item_dims)
    layout = ItemLayout.of_template(template)
    one = sum(item_bytes(template, (0,) * len(grid)).values())
    records = zip(grid, record_chunk(grid, layout.record_bytes), strict=False)
    flags = -(-grid[0] // mask_chunk(grid)[0]) + prod(-(-n // chunk) for n, chunk in records)
    objects = _documents(template) + flags + prod(grid) * layout.files
    return GroupSize(template.path, prod(grid), one, objects)


def _documents(template: Template) -> int:
    """Documents and coordinates of a group, as they are made with it."""
    staging = Staging()
    create_arrays(staging.root, template)
    copy_coordinates(staging, template.path)
    documents, files, _ = staging.changed(template.path)
    return 1 + len(documents) + len([key for key in files if not key.startswith("written")])


def _puts(size: int) -> int:
    """Requests that an object takes: one, or a begin, its parts and an end."""
    return 1 if size <= PART else 2 + -(-size // PART)


def document(plan: CachePlan, prices: Mapping[str, float | None]) -> dict[str, Any]:
    """A plan for JSON; parameters as of the command."""
    known = {name: price for name, price in prices.items() if price is not None}
    found: dict[str, Any] = {"model": plan.model, "forwards": plan.forwards}
    for name, kept in (("whole", plan.whole), ("rolling", plan.rolling)):
        found[name] = {
            "bytes": kept.bytes,
            "objects": kept.objects,
            "requests": vars(kept.requests),
            "groups": {g.path: {**vars(g), "bytes": g.bytes} for g in kept.groups},
        }
        if known:
            found[name]["cost"] = kept.requests.cost(**{"put": 0.0, "get": 0.0, **known})
    return found
