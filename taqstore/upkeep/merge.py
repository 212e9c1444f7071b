"""Merging: runs of one model and one configuration become one store, shard by shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, StoreError, problem
from taqstore.files.staged import whole_file
from taqstore.metadata.provenance import make_record
from taqstore.place.location import Address, Location
from taqstore.place.remote.options import StorageOptions, takes_storage_options
from taqstore.run.dealing import Each
from taqstore.run.outcome import Outcome
from taqstore.run.progress import SILENT, Progress
from taqstore.store.group_writer import GroupWriter
from taqstore.store.reader import Store, open_store
from taqstore.store.writer import StoreWriter, create_store
from taqstore.together.agreed import Together, put_together, shared_groups
from taqstore.together.checks import Duplicates
from taqstore.upkeep.carried import carry_records, described, records_of
from taqstore.upkeep.copying import Copier
from taqstore.upkeep.merge_shares import Plan, copy_shares

_COMMAND = "merge"
_WORK = "merge.json"
_KEY = f".taqstore/{_WORK}"


@takes_storage_options
def merge(
    *addresses: Address,
    groups: Sequence[str] = (),
    renumber: bool = False,
    duplicates: Duplicates = "refuse",
    progress: Progress = SILENT,
    each: Each | None = None,
    storage_options: StorageOptions | None = None,
) -> Outcome:
    """Concatenate stores along image and batch into a new one, in one pass over each.

    Files are copied as they are, each compared with its item's record; the result is, byte for
    byte, what one run over the images of all would have written. Sensitivities, static scores and
    trajectories of judged images are united item by item: images that two stores have are one, with
    the targets of both. The provenance of all is carried over. Interrupted, the same call goes on
    where it stopped.

    Parameters
    ----------
    addresses
        Two stores or more, which stay as they are, then the new store, or one that this very merge
        has begun. Only complete items are taken.
    groups
        Groups to merge; by default all that are made of images or batches. Statistics that arrived
        already reduced cannot be merged and are left out, with a note.
    renumber
        Number each store's images after those of the stores before it, for runs that all count from
        0.
    duplicates
        What to do with an image that an earlier store has too (same prompt, seed and guidance
        weight; or, without latents, equal extrema throughout): refuse, skip it, or keep it twice,
        which counts its statistics twice.
    progress
        Told of bytes, item by item.
    each
        Other processes that copy, as `map` of a function over shares of the items. Default: this
        one copies.
    storage_options
        As of `taqstore.open_store`.

    Raises
    ------
    MisuseError
        Fewer than three addresses.
    MissingError
        A group is in some of the stores only.
    LayoutError
        Steps, sigmas, layers, layouts, model or configuration of two stores differ; all fields are
        named.
    TaqError
        Image ids collide, or there are duplicates; both stores are named.
    StoreError
        A store is missing, or the target is something else.
    """
    if len(addresses) < 3:
        what, remedy = "merge takes two stores or more, then the new one", "name them all"
        raise MisuseError(problem(what, found=f"{len(addresses)}", remedy=remedy))
    *sources, out = addresses
    stores = [
        open_store(address, chunks=None, checksum=True, incomplete=True) for address in sources
    ]
    outcome = Outcome()
    paths = shared_groups(stores, groups, outcome.notes)
    together = put_together(stores, paths, renumber=renumber, duplicates=duplicates)
    inputs = [described(store) for store in stores]
    options = {"renumber": renumber, "offsets": together.offsets, "duplicates": duplicates}
    with _begun(stores, out, {"inputs": inputs, "options": options}) as writer:
        progress.start(sum(part.nbytes for parts in together.parts.values() for part in parts))
        groups_of = {path: writer.group(together.template(path)) for path in paths}
        if each is None:
            for path, group in groups_of.items():
                _copy_group(group, path, together, outcome, progress)
        else:
            sources_of = tuple(store.location for store in stores)
            plan = Plan(sources_of, writer.location, tuple(paths), renumber, duplicates)
            copy_shares(plan, together, each, outcome, progress)
        carry_records(writer, stores)
        if not _recorded(writer, inputs):
            counts = {"written": outcome.written}
            record = make_record(
                _COMMAND, parameters=options, inputs=inputs, groups=paths, counts=counts
            )
            writer.record(record)
    _Note(writer).drop()
    return outcome


def _begun(stores: Sequence[Store], out: Address, work: Mapping[str, Any]) -> StoreWriter:
    """The target, open: new, or begun or finished by this same merge.

    Raises
    ------
    StoreError
        It is one of the sources, or holds something else.
    """
    location = Location.parse(out)
    if any(location.same_as(store.location) for store in stores):
        raise StoreError(problem("the target is one of the sources", where=str(location)))
    writer = create_store(location)
    note, recorded = _Note(writer), _recorded(writer, work["inputs"])
    if writer.root_record().groups and not recorded and note.read() != work:
        what, remedy = "the target holds something else", "choose another path"
        raise StoreError(problem(what, where=str(location), remedy=remedy))
    if not recorded:
        note.write(work)
    return writer


class _Note:
    """What a merge that is under way keeps about itself, so that the same call goes on with it.

    It lies beside a local store, and among the work files of others.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self._backend = writer.backend
        self._path = None if writer.location.folder is None else writer.location.beside(_WORK)

    def read(self) -> Any:
        """What was written; None where there is nothing, or nothing whole."""
        try:
            raw = self._backend.read(_KEY) if self._path is None else self._path.read_bytes()
            return None if raw is None else json.loads(raw)
        except (FileNotFoundError, ValueError, RecursionError):
            return None

    def write(self, work: Mapping[str, Any]) -> None:
        """Put it down, in place of an earlier one."""
        text = json.dumps(work)
        if self._path is None:
            self._backend.write(_KEY, [text.encode()])
            return
        with whole_file(self._path, force=True) as fresh:
            fresh.write_text(text, encoding="utf-8")

    def drop(self) -> None:
        """The merge is done."""
        if self._path is None:
            self._backend.delete(_KEY)
        else:
            self._path.unlink(missing_ok=True)


def _recorded(writer: StoreWriter, inputs: Sequence[Mapping[str, Any]]) -> bool:
    records = records_of(writer)
    return any(r["command"] == _COMMAND and r["inputs"] == list(inputs) for r in records)


def _copy_group(
    group: GroupWriter, path: str, together: Together, outcome: Outcome, progress: Progress
) -> None:
    for part, rows in zip(together.parts[path], together.rows(path), strict=True):
        # What an earlier store has of a united group was compared with this one's.
        copier = Copier(group, part, rows, compare=False)
        copier.copy_all(map(tuple, np.argwhere(part.mask).tolist()), outcome, progress)
