"""Chosen groups of one store brought to another address: `taqstore pull` and `taqstore push`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from taqstore.errors import (
    LayoutError,
    MissingError,
    MisuseError,
    StoreError,
    TaqError,
    problem,
)
from taqstore.layout.item_bytes import numbers_of
from taqstore.metadata.provenance import make_record
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.outcome import Outcome
from taqstore.run.plan import Plan
from taqstore.run.progress import SILENT, Progress
from taqstore.store.groups import KEEP_OR_REPLACE
from taqstore.store.planned import PlannedWriter, plan_store
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter, create_store
from taqstore.together.parts import Part, read_any_part
from taqstore.transfer.choice import Choice
from taqstore.transfer.planned import count_group
from taqstore.upkeep.carried import carry_records, described, records_of
from taqstore.upkeep.copying import Copier

Command = Literal["pull", "push"]
_ALL = Choice()


@takes_storage_options
def pull(
    source: Address,
    target: Address,
    *,
    choice: Choice = _ALL,
    command: Command = "pull",
    dry_run: bool = False,
    progress: Progress = SILENT,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Bring what is chosen of a store to another address, into a new store or one that is there.

    Files that stay whole are copied as they are, byte for byte; where layers or steps are cut out
    of a file, it is written anew. Each file is compared with the record of its item before the item
    is flagged in the target. Interrupted, the same call goes on; what is there already is skipped,
    and images that are not are added. The source's provenance goes along, with a record of what was
    chosen and what was left out.

    Parameters
    ----------
    source
        The store, which stays as it is. Only its complete items are taken.
    target
        The other address.
    choice
        What is brought: by default everything.
    command
        What the provenance calls it.
    dry_run
        Write nothing: `Outcome.plan` says what would be written.
    progress
        Told of bytes, item by item.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MissingError
        Nothing is chosen, or a group that is named is not there.
    LayoutError
        The target has a group otherwise: of other steps, layers, or of another run.
    StoreError
        There is no store, a file of it is damaged, or the target has another item in its place.
    """
    store = open_store(source, chunks=None, checksum=True, incomplete=True)
    location = Location.parse(target)
    if location.same_as(store.location):
        raise StoreError(problem("the target is the source", where=str(location)))
    outcome = Outcome()
    parts = _chosen(store, choice, outcome.notes)
    opened = plan_store(location) if dry_run else create_store(location)
    with opened as writer:
        if isinstance(writer, PlannedWriter):
            outcome.plan = _planned(writer, parts)
            return outcome
        progress.start(sum(part.nbytes for part in parts.values()))
        for part in parts.values():
            group = _group(writer, part)
            numbers = sorted(numbers_of(part.template, part.mask))
            copier = Copier(group, part, np.arange(len(part.places)))
            copier.copy_all(numbers, outcome, progress)
        _record(writer, store, choice, parts, outcome, command)
    return outcome


def _chosen(store: Store, choice: Choice, notes: list[str]) -> dict[str, Part]:
    """Groups by path, cut to what is chosen."""
    parts: dict[str, Part] = {}
    refused: list[TaqError] = []
    kept = set[str]()
    for path in choice.paths(store):
        part = read_any_part(store, path)
        meant = choice.meant_in(part)
        try:
            part = choice.of(part)
        except (MissingError, MisuseError) as error:
            refused.append(error)
            notes.append(f"{path} has nothing of what was chosen; left out")
            continue
        kept.update(meant)
        if part.mask.any():
            parts[path] = part
        else:
            notes.append(f"{path} has no complete item; left out")
    _check_chosen(store, choice, kept, refused)
    if not parts:
        what = "the store has no complete item of what was chosen"
        raise MissingError(problem(what, where=str(store.location)))
    return parts


def _check_chosen(
    store: Store, choice: Choice, kept: set[str], refused: Sequence[TaqError]
) -> None:
    """Refuse an option that no group has anything of: it was mistyped, or is of another store."""
    nothing = [name for name in choice.asked if name not in kept]
    if not nothing and not any(isinstance(error, MisuseError) for error in refused):
        return
    if refused:
        raise next((e for e in refused if "did you mean" in str(e)), refused[0])
    what = f"no group of what was chosen has what --{nothing[0]} is about"
    raise MissingError(problem(what, where=str(store.location)))


def _group(writer: StoreWriter, part: Part) -> Any:
    try:
        return writer.group(part.template)
    except LayoutError as error:
        remedy = "choose as it was chosen before, or another store"
        raise LayoutError(str(error).replace(KEEP_OR_REPLACE, remedy)) from error


def _planned(writer: PlannedWriter, parts: Mapping[str, Part]) -> Plan:
    plan = Plan(free=_free(writer.location), unit="bytes")
    for part in parts.values():
        count_group(plan, _group(writer, part), part)
    return plan


def _free(location: Location) -> int | None:
    if location.folder is None:
        return None
    there = next(path for path in (location.folder, *location.folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def _record(
    writer: StoreWriter,
    store: Store,
    choice: Choice,
    parts: Mapping[str, Part],
    outcome: Outcome,
    command: Command,
) -> None:
    """Bring the source's records, and tell what was brought; not twice where nothing was."""
    carry_records(writer, [store])
    parameters = {
        "groups": list(choice.groups),
        "sites": list(choice.sites),
        **{name: getattr(choice, name) for name in ("layer", "step", "block", "image")},
        "left_out": [path for path in store.paths if path not in parts],
        "cut": {path: kept for path, part in parts.items() if (kept := _kept(part))},
    }
    inputs: Sequence[dict[str, Any]] = [described(store)]
    told = any(
        (r["command"], r["inputs"], r["parameters"]) == (command, inputs, parameters)
        for r in records_of(writer)
    )
    if outcome.written or not told:
        counts = {"written": outcome.written}
        writer.record(
            make_record(
                command, parameters=parameters, inputs=inputs, groups=[*parts], counts=counts
            )
        )


def _kept(part: Part) -> dict[str, list[int]]:
    """Of each dimension that was cut, how many of how many labels are left."""
    shapes: dict[str, int] = {}
    for array in part.template.arrays:
        shapes |= dict(zip(array.dims, part.array(array.name).shape, strict=True))
    sizes = part.template.sizes
    return {dim: [sizes[dim], n] for dim, n in shapes.items() if sizes[dim] < n}
