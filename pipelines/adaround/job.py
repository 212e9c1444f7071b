"""Blocks of `adaround`, one after the other: claimed, optimised, written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from taqstore.names import BLOCKS
from taqstore.run.mode import Mode
from taqstore.store.reader import Store

from ..models.layers import ModelBlock, blocks
from ..models.load import LoadedModel
from ..models.rounding import Settings
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

    def run_blocks(self, names: Sequence[str], run: Mapping[str, Any]) -> None:
        """Quantize the blocks that are not complete."""
        group, outcome = self.results.blocks, self.results.outcome
        done = group.written()
        every = [(i, b) for i, b in enumerate(blocks(self.model.mmdit)) if b.name in names]
        pending = [(i, block) for i, block in every if not done[i]]
        outcome.count(group.template.path).skipped += len(every) - len(pending)
        forwards = len(self.rolling.rolled) if self.rolling else 0
        if self.rolling:
            self.rolling.check_space([place for place, _ in pending])
        self.mode.progress.start(len(pending) * (self.settings.iterations + forwards))
        for place, block in pending:
            if self.prefix and place and not group.written()[place - 1]:
                outcome.notes.append(f"{block.name}: the block before it is not complete")
                break
            with group.claim((place,)) as held:
                if held and not group.written()[place]:
                    if self.rolling:
                        self.rolling.prepare(place)
                    self._one_block(place, {**run, "block": block.name})
                    continue
            outcome.notes.append(f"{block.name}: left to another process that is working on it")
            if self.rolling:  # whose boundaries these are
                return
        self._finish(every)

    def _finish(self, every: Sequence[tuple[int, ModelBlock]]) -> None:
        """Drop the boundaries that are left, if nobody is at work on a block."""
        if self.rolling:
            with ExitStack() as claims:
                claimed = [self.results.blocks.claim((place,)) for place, _ in every]
                if all(claims.enter_context(claim) for claim in claimed):
                    self.rolling.finish()

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
