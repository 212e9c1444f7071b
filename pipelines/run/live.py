"""What the commands that run a model share: groups opened by one rule, counts, the record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taqstore.errors import LayoutError, StoreError, problem
from taqstore.store.provenance import describe_input, library_versions, make_record
from taqstore.store.template import Template
from taqstore.store.writer import GroupWriter, StoreWriter

# Group attribute with what made a group; another configuration may not add to it.
RUN = "run"
Progress = Callable[[str, int], None]


@dataclass
class Counts:
    """What happened to the items of one group."""

    written: int = 0
    skipped: int = 0
    bytes_out: int = 0


@dataclass
class Outcome:
    """What a command did, by group."""

    groups: dict[str, Counts] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, group: str) -> Counts:
        """The counters of a group."""
        return self.groups.setdefault(group, Counts())

    def wrote(self, group: str, *, items: int = 1, size: int = 0) -> None:
        """Add items and bytes written to a group."""
        self.count(group).written += items
        self.count(group).bytes_out += size


@dataclass(frozen=True)
class Mode:
    """How to treat what is there already, and whom to tell.

    Parameters
    ----------
    resume
        Skip what is complete. Without it, finding complete items is an error.
    force
        Replace the groups.
    on_start, on_progress
        Called with the number of forwards to come, and with (label, forwards done).
    """

    resume: bool = False
    force: bool = False
    on_start: Callable[[int], None] | None = None
    on_progress: Progress | None = None

    def start(self, total: int) -> None:
        """Say how many forwards will run."""
        if self.on_start:
            self.on_start(total)

    def advance(self, label: str, count: int = 1) -> None:
        """Say that forwards are done."""
        if self.on_progress:
            self.on_progress(label, count)


def open_groups(
    writer: StoreWriter, templates: Sequence[Template], mode: Mode
) -> dict[str, GroupWriter]:
    """Open or create the groups, by path.

    Raises
    ------
    LayoutError
        A group was made by another configuration; the differing fields are named.
    StoreError
        A group holds complete items, and neither resume nor force was asked for.
    """
    if not mode.force:
        for template in templates:
            _check_run(writer, template)
    groups = {t.path: writer.group(t, replace=mode.force) for t in templates}
    if not mode.resume:
        for path, group in groups.items():
            _refuse_overwriting(path, group)
    return groups


def _check_run(writer: StoreWriter, template: Template) -> None:
    node: Any = writer.root.get(template.path)
    if node is None or "taqstore" not in node.attrs:
        return
    stored, asked = node.attrs.get(RUN, {}), template.attrs[RUN]
    differing = [
        f"{name} (store {stored.get(name)!r}, asked {asked.get(name)!r})"
        for name in dict.fromkeys([*asked, *stored])
        if stored.get(name) != asked.get(name)
    ]
    if differing:
        raise LayoutError(
            problem(
                f"this group was made with other settings: {'; '.join(differing)}",
                where=f"{writer.location} {template.path}",
                remedy="use another store, or --force to replace the group",
            )
        )


def _refuse_overwriting(path: str, group: GroupWriter) -> None:
    done = group.written()
    if done.any():
        raise StoreError(
            problem(
                f"{path} already holds {int(done.sum())} of the {done.size} items",
                where=str(group.store.location),
                remedy="--resume skips them, --force replaces the group",
            )
        )


def record_run(
    writer: StoreWriter,
    command: str,
    outcome: Outcome,
    *,
    parameters: Mapping[str, Any],
    inputs: Iterable[Path] = (),
    libraries: Sequence[str] = (),
) -> None:
    """Append the provenance record of a command, with the versions of its libraries."""
    record = make_record(
        command,
        parameters=parameters,
        inputs=[describe_input(path) for path in inputs],
        groups=list(outcome.groups),
        counts={
            "written": sum(c.written for c in outcome.groups.values()),
            "skipped": sum(c.skipped for c in outcome.groups.values()),
        },
    )
    record["versions"] |= library_versions(libraries)
    writer.record(record)
