"""The provenance record of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from taqstore.metadata.provenance import describe_input, library_versions, make_record
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.store.writer import StoreWriter

from .dry import SHARD


def record_run(
    writer: StoreWriter,
    command: str,
    outcome: Outcome,
    *,
    parameters: Mapping[str, Any],
    inputs: Iterable[Path] = (),
    groups: Sequence[str] | None = None,
    counted: Sequence[str] = ("written", "skipped"),
    libraries: Sequence[str] = (),
    resume: bool = False,
    mode: Mode | None = None,
    work: Mapping[str, int] | None = None,
) -> None:
    """Append the provenance record of a run, if it did anything.

    Parameters
    ----------
    parameters, inputs
        What it was asked, and the files and folders it read.
    groups
        Groups it filled; None: all of the outcome.
    counted
        Fields of `Counts` to record, summed over these groups.
    libraries
        Whose versions shaped the result, besides taqstore's own.
    resume
        It went on where another stopped; where it had nothing to write, there is no record.
    mode
        Whether it was resumed, and which part of a run it was: a shard is among the parameters,
        and tasks in other processes tell no pace.
    work
        How much work it was, and how long it took: see `dry.work_done`.
    """
    mode = mode or Mode(resume=resume)
    if mode.shard is not None:
        parameters = {**parameters, SHARD: str(mode.shard)}
    if mode.scheduler is not None:
        work = None
    paths = list(outcome.groups) if groups is None else list(groups)
    counts = [outcome.count(path) for path in paths]
    if mode.resume and not any(count.written for count in counts):
        return
    record = make_record(
        command,
        parameters=parameters,
        inputs=[describe_input(path) for path in inputs],
        groups=paths,
        counts={name: sum(getattr(count, name) for count in counts) for name in counted}
        | dict(work or {}),
    )
    record["versions"] |= library_versions(libraries)
    writer.record(record)
