"""Blocks of `adaround`, one after the other: claimed, optimised, written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from taqstore.names import BLOCKS
from taqstore.run.mode import Mode
from taqstore.store.reader import Store

from ..models.layers import ModelBlock, blocks
from ..models.load import LoadedModel
from ..models.rounding import Settings
from ..tasks.units import Call, run_units
from .one_block import BlockWork, Checkpoint
from .prefix import PrefixWriter, prefix_streams
from .result_groups import BlockResult, RoundingWriter
from .rolling import Rolling
from .weight_start import WeightSet


@dataclass(frozen=True)
class Job:
    """One run of `adaround`."""

    store: Store
    model: LoadedModel
    settings: Settings
    results: RoundingWriter
    prefix: PrefixWriter | None
    folder: Path | None
    checkpoint_seconds: float
    mode: Mode
    start: WeightSet | None = None
    rolling: Rolling | None = None
    given_up: set[int] = field(default_factory=set)

    def mine(self, names: Sequence[str]) -> dict[int, ModelBlock]:
        """Those of these blocks that this process is to do, by their place in the model."""
        every = blocks(self.model.mmdit)
        places = [i for i, block in enumerate(every) if block.name in names]
        return {i: every[i] for i in self.mode.mine(places)}

    def pending(self, names: Sequence[str]) -> dict[int, ModelBlock]:
        """Those that are not complete."""
        done = self.results.blocks.written()
        return {i: block for i, block in self.mine(names).items() if not done[i]}

    def run_blocks(
        self,
        names: Sequence[str],
        run: Mapping[str, Any],
        called: Call,
        close: Callable[[], None],
    ) -> None:
        """Quantize the blocks that are not complete; the last two as of `run_units`."""
        group, outcome = self.results.blocks, self.results.outcome
        pending, every = self.pending(names), blocks(self.model.mmdit)
        outcome.count(group.template.path).skipped += len(self.mine(names)) - len(pending)
        forwards = 0
        if self.rolling:
            self.rolling.check_space(list(pending))
            forwards = len(self.rolling.rolled)
        self.mode.progress.start(len(pending) * (self.settings.iterations + forwards))
        run_units(
            {place: place for place in pending},
            partial(self._claimed_block, run, frozenset(pending)),
            called=called,
            mode=self.mode,
            outcome=outcome,
            left_note=lambda place: (
                f"{every[place].name}: left to another process that is working on it"
            ),
            close=close,
        )
        self._finish(names)

    def _finish(self, names: Sequence[str]) -> None:
        """Drop the boundaries that are left, if nobody is at work on a block."""
        if self.rolling:
            with ExitStack() as claims:
                group, done = self.results.blocks, self.results.blocks.written()
                claimed = [group.claim((i,)) for i in self.mine(names) if not done[i]]
                if all(claims.enter_context(claim) for claim in claimed):
                    self.rolling.finish()

    def _claimed_block(self, run: Mapping[str, Any], pending: Set[int], place: int) -> bool:
        """Quantize a block, or give it up; False where another process holds it."""
        group, name = self.results.blocks, blocks(self.model.mmdit)[place].name
        if self.prefix and place and not group.written()[place - 1]:
            # Of the blocks that are asked for, it is done here or by whoever holds it.
            if place - 1 in pending and place - 1 not in self.given_up:
                return False
            if place - 1 not in self.given_up:
                note = f"{name}: the block before it is not complete"
                self.results.outcome.notes.append(note)
            self.given_up.add(place)
            return True
        if self.rolling and any(i < place for i in self._open(pending)):
            return False  # its boundaries are made from those of the blocks before it
        with group.claim((place,)) as held:
            if not group.written()[place]:
                if not held:
                    return False
                if self.rolling:
                    self.rolling.prepare(place)
                self._one_block(place, {**run, "block": name})
        return True

    def _open(self, places: Set[int]) -> Set[int]:
        """Those of these blocks that are neither complete nor given up."""
        done = self.results.blocks.written()
        return {place for place in places if not done[place]} - self.given_up

    def _one_block(self, place: int, about: Mapping[str, Any]) -> None:
        begun, every = monotonic(), blocks(self.model.mmdit)
        block = every[place]
        fed = self.prefix
        given = prefix_streams(block, set=fed.set) if fed and place else {}
        cached = self.rolling.streams(place) if self.rolling else None
        # Written since the store was opened, by the block before, in this process or another.
        self.store.refresh(*(f"{BLOCKS}/{name}" for name in given.values()))
        work, checkpoint = self.open(block, given, cached), self.checkpoint(about)
        kept = work.learn(checkpoint, self.mode.progress, begun=begun)
        result = BlockResult(
            work.optimiser.rounded(),
            work.errors(),
            work.optimiser.losses,
            kept.rounding,
            kept.seconds + monotonic() - begun,
        )
        if self.prefix and place + 1 < len(every):
            self.prefix.write(every[place + 1], work.samples, work.outputs())
        self.results.write(block.name, result)
        if checkpoint is not None:
            checkpoint.remove()

    def open(
        self,
        block: ModelBlock,
        given: Mapping[str, str],
        cached: Mapping[str, str] | None = None,
    ) -> BlockWork:
        """The work on a block; parameters as of `BlockWork.open`."""
        return BlockWork.open(
            self.store,
            self.model,
            block,
            self.settings,
            self.results.inputs,
            given=given,
            cached=cached,
            start=self.start,
        )

    def checkpoint(self, about: Mapping[str, Any]) -> Checkpoint | None:
        """Where the state of the block that `about` names is kept; None where there is no place."""
        if self.folder is None:
            return None
        path = self.folder / f"{about['block']}.safetensors"
        return Checkpoint(path, about, self.checkpoint_seconds)
