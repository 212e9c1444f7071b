"""Observations on their way into `activations/<site>`: one batch, a run of steps at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress

import numpy as np

from taqstore.errors import LayoutError, problem
from taqstore.layout.item_records import Item
from taqstore.layout.template import Array, Template
from taqstore.statistics.bins import Layout
from taqstore.statistics.channel_histogram import count_blocks
from taqstore.statistics.observation import Observation, merge
from taqstore.store.group_writer import GroupWriter
from taqstore.store.planned import PlannedGroup

from ..models.inputs import Input
from ..models.load import Tensor, to_numpy

# Of a site, by variable.
Arrays = dict[str, np.ndarray]


class Shelf:
    """Arrays of runs of steps that were written, to be filled again: new memory costs as much."""

    def __init__(self) -> None:
        self._free: dict[str, list[Arrays]] = {}

    def take(self, template: Template) -> Arrays:
        """Arrays of one batch of a site and a run of steps; what is in them is left over."""
        with suppress(KeyError, IndexError):
            return self._free[template.path].pop()
        shape = {d: template.sizes[d] for d in template.sizes} | {"batch": 1}
        shape["step"] = template.shard_extent("step")
        return {a.name: _empty(a, shape) for a in template.arrays}

    def put_back(self, template: Template, arrays: Arrays) -> None:
        """Let another run of this site have them."""
        self._free.setdefault(template.path, []).append(arrays)


def _empty(array: Array, shape: Mapping[str, int]) -> np.ndarray:
    """Memory in which each chunk that will be written lies in one piece."""
    first = [array.split] if array.split else []
    order = [*first, *(dim for dim in array.dims if dim not in first)]
    made = np.empty([shape[dim] for dim in order], array.dtype)
    return made.transpose([order.index(dim) for dim in array.dims])


class SiteBuffer:
    """One batch of one site: steps are added in order, each full run of them is written.

    Runs are written by `pool` while the model goes on with the next steps. What is held is two
    shards of every variable, whatever the number of steps.
    """

    def __init__(self, group: GroupWriter, batch: int, pool: Executor, shelf: Shelf) -> None:
        self._group, self._batch, self._pool, self._shelf = group, batch, pool, shelf
        self._writing: Future[int] | None = None
        self.template: Template = group.template
        """Of the site's group."""
        layers = self.template.coords["layer"][1]
        self._layers: dict[str, int] = {str(layer): i for i, layer in enumerate(layers)}
        self._steps, self._run = self.template.sizes["step"], self.template.shard_extent("step")
        self._start, self._count = 0, 0
        self._held: Arrays = {}
        self.bytes_out = 0
        self.is_sound = True
        """Whether all values were finite, of what is written."""

    def add(self, step: Mapping[str, Observation]) -> None:
        """Take the next step's observations by layer; every layer of the group must be there."""
        self._held = self._held or self._shelf.take(self.template)
        for layer, index in self._layers.items():
            for name, values in step[layer].variables().items():
                self._held[name][0, self._count, index] = values
        self._count += 1
        end = self._start + self._count
        if self._count == self._run or end == self._steps:
            self._finish_writing()
            self._writing = self._pool.submit(self._write, self._start, self._count, self._held)
            self._start, self._count, self._held = end, 0, {}

    def _finish_writing(self) -> None:
        if self._writing is not None:
            self.bytes_out += self._writing.result()
            self._writing = None

    def _write(self, start: int, count: int, held: Arrays) -> int:
        """Write a run of steps; returns bytes written."""
        self.is_sound &= not held["nonfinite"][:, :count].any()
        size = sum(
            self._group.put(name, (self._batch, start, *[0] * (values.ndim - 2)), values[:, :count])
            for name, values in held.items()
        )
        self._shelf.put_back(self.template, held)
        return size

    def measure(self, group: PlannedGroup) -> None:
        """Let a group that is planned see how well the steps that are held compress."""
        self._finish_writing()
        for name, values in self._held.items():
            group.measure(name, values[:, : self._count])

    def finish(self) -> tuple[GroupWriter, Item]:
        """The group and the item of it that can be flagged, once it is written."""
        self._finish_writing()
        if self._start != self.template.sizes["step"]:
            what = f"{self._start} of {self.template.sizes['step']} steps of a batch"
            raise LayoutError(problem(what, where=self.template.path))
        return self._group, (self._batch,)


class Recorder:
    """Observations of one step, merged over the images of a batch.

    Parameters
    ----------
    reduce
        Makes an observation of every tensor.
    sinks
        Told of the tensors of their sites, for histograms of channels.
    """

    def __init__(
        self,
        reduce: Callable[[Sequence[Tensor]], list[Observation]],
        sinks: Mapping[str, ChannelSink],
    ) -> None:
        self._reduce, self._sinks = reduce, sinks
        self._position = 0
        self.seen: dict[str, dict[str, Observation]] = {}

    def begin(self, position: int) -> None:
        """Start the step at this position."""
        self._position, self.seen = position, {}

    def take(self, inputs: Sequence[tuple[Input, Tensor]]) -> None:
        """Observe the inputs ``(..., channel)`` of linears, a tensor that several read once."""
        distinct = {id(tensor): tensor for _, tensor in inputs}
        observed = dict(zip(distinct, self._reduce(list(distinct.values())), strict=True))
        for one, tensor in inputs:
            if one.site in self._sinks:
                self._sinks[one.site].add(self._position, one.layer, to_numpy(tensor))
            layers, found = self.seen.setdefault(one.site, {}), observed[id(tensor)]
            before = layers.get(one.layer)
            layers[one.layer] = found if before is None else merge(before, found)


class ChannelSink:
    """One batch of one site's channel histograms: each tensor is counted and written at once."""

    def __init__(self, group: GroupWriter, batch: int) -> None:
        self._group, self._batch = group, batch
        template = group.template
        layers = template.coords["layer"][1]
        self._layers: dict[str, int] = {str(layer): i for i, layer in enumerate(layers)}
        attrs = template.array("channel_histogram").attrs
        self._layout = Layout(attrs["layout"], attrs["mantissa_bits"])
        self.bytes_out = 0

    @property
    def template(self) -> Template:
        """Of the site's group."""
        return self._group.template

    def add(self, step: int, layer: str, values: np.ndarray) -> None:
        """Count a tensor ``(..., channel)`` seen at a position of `step`."""
        counts = np.concatenate(list(count_blocks(values, self._layout)), dtype=np.uint32)
        start = (self._batch, step, self._layers[layer], 0, 0)
        self.bytes_out += self._group.put("channel_histogram", start, counts[None, None, None])

    def finish(self) -> tuple[GroupWriter, Item]:
        """The group and the item of it that can be flagged: all is written."""
        return self._group, (self._batch,)
