"""Observations on their way into `activations/<site>`: one batch, a run of steps at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future

import numpy as np

from taqstore.errors import LayoutError, problem
from taqstore.layout.template import Template
from taqstore.statistics.bins import Layout
from taqstore.statistics.channel_histogram import count_blocks
from taqstore.statistics.observation import Observation, merge
from taqstore.store.group_writer import GroupWriter
from taqstore.store.planned import PlannedGroup

from ..models.inputs import Input
from ..models.load import Tensor, to_numpy


class SiteBuffer:
    """One batch of one site: steps are added in order, each full run of them is written.

    Runs are written by `pool` while the model goes on with the next steps. What is held is two
    shards of every variable, whatever the number of steps.
    """

    def __init__(self, group: GroupWriter, batch: int, pool: Executor) -> None:
        self._group, self._batch, self._pool = group, batch, pool
        self._writing: Future[int] | None = None
        template = group.template
        layers = template.coords["layer"][1]
        self._layers: dict[str, int] = {str(layer): i for i, layer in enumerate(layers)}
        self._start = 0
        self._held: list[Mapping[str, Observation]] = []
        self.bytes_out = 0
        self.is_sound = True
        """Whether all values were finite, of what is written."""

    @property
    def template(self) -> Template:
        """Of the site's group."""
        return self._group.template

    def add(self, step: Mapping[str, Observation]) -> None:
        """Take the next step's observations by layer; every layer of the group must be there."""
        self._held.append(step)
        end = self._start + len(self._held)
        if len(self._held) == self._run or end == self.template.sizes["step"]:
            self._finish_writing()
            self._writing = self._pool.submit(self._write, self._start, self._held)
            self._start, self._held = end, []

    def _finish_writing(self) -> None:
        if self._writing is not None:
            self.bytes_out += self._writing.result()
            self._writing = None

    @property
    def _run(self) -> int:
        return self.template.shard_extent("step")

    def _write(self, start: int, steps: Sequence[Mapping[str, Observation]]) -> int:
        """Write a run of steps; returns bytes written."""
        arrays = self._arrays(steps)
        self.is_sound &= not arrays["nonfinite"].any()
        return sum(
            self._group.put(name, (self._batch, start, *[0] * (values.ndim - 2)), values)
            for name, values in arrays.items()
        )

    def measure(self, group: PlannedGroup) -> None:
        """Let a group that is planned see how well the steps that are held compress."""
        self._finish_writing()
        for name, values in self._arrays(self._held).items() if self._held else ():
            group.measure(name, values)

    def _arrays(self, steps: Sequence[Mapping[str, Observation]]) -> dict[str, np.ndarray]:
        template = self.template
        shape = {d: template.sizes[d] for d in template.sizes} | {"batch": 1, "step": len(steps)}
        arrays = {a.name: np.empty([shape[d] for d in a.dims], a.dtype) for a in template.arrays}
        for position, observations in enumerate(steps):
            for layer, index in self._layers.items():
                for name, values in observations[layer].variables().items():
                    arrays[name][0, position, index] = values
        return arrays

    def commit(self) -> None:
        """Flag the batch, once it is written."""
        self._finish_writing()
        if self._start != self.template.sizes["step"]:
            what = f"{self._start} of {self.template.sizes['step']} steps of a batch"
            raise LayoutError(problem(what, where=self.template.path))
        self._group.commit([(self._batch,)])


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

    def commit(self) -> None:
        """Flag the batch."""
        self._group.commit([(self._batch,)])
