"""Shares of a merge, dealt out to other processes: each opens the stores for itself, once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from taqstore.layout.item_records import Item
from taqstore.place.location import Location
from taqstore.run.dealing import Each
from taqstore.run.outcome import Outcome
from taqstore.run.progress import SILENT, Progress
from taqstore.store.reader import open_store
from taqstore.store.writer import StoreWriter, create_store
from taqstore.together.agreed import Together, put_together
from taqstore.together.checks import Duplicates
from taqstore.upkeep.copying import Copier

_ITEMS = 16
"""Items of a share: few enough that a lost worker costs little."""


@dataclass(frozen=True)
class Plan:
    """What a process must know to copy any share of a merge.

    Parameters
    ----------
    sources, out
        Where the stores are.
    paths, renumber, duplicates
        As of `put_together`.
    """

    sources: tuple[Location, ...]
    out: Location
    paths: tuple[str, ...]
    renumber: bool
    duplicates: Duplicates


@dataclass(frozen=True)
class Share:
    """Some items of one group of one source."""

    path: str
    source: int
    items: tuple[Item, ...]


@lru_cache(maxsize=1)
def _opened(plan: Plan) -> tuple[Together, StoreWriter]:
    stores = [open_store(one, chunks=None, checksum=True, incomplete=True) for one in plan.sources]
    together = put_together(stores, plan.paths, renumber=plan.renumber, duplicates=plan.duplicates)
    return together, create_store(plan.out)


def _copied(plan: Plan, share: Share) -> tuple[int, int, int]:
    """Copy a share: items written, skipped, and bytes."""
    together, writer = _opened(plan)
    group, outcome = writer.group(together.template(share.path)), Outcome()
    part = together.parts[share.path][share.source]
    rows = list(together.rows(share.path))[share.source]
    Copier(group, part, rows, compare=False).copy_all(share.items, outcome, SILENT)
    counts = outcome.count(share.path)
    return counts.written, counts.skipped, outcome.bytes_out


def copy_shares(
    plan: Plan, together: Together, each: Each, outcome: Outcome, progress: Progress
) -> None:
    """Have all items of a merge copied by other processes; the target's groups are there."""
    shares = [share for path in plan.paths for share in _shares(path, together)]
    for share, (written, skipped, size) in zip(
        shares, each(partial(_copied, plan), shares), strict=True
    ):
        counts = outcome.count(share.path)
        counts.written += written
        counts.skipped += skipped
        counts.bytes_out += size
        part = together.parts[share.path][share.source]
        progress.advance(share.path, _bytes_of(part.nbytes, part.mask, len(share.items)))


def _shares(path: str, together: Together) -> Iterator[Share]:
    for number, part in enumerate(together.parts[path]):
        items: Sequence[Item] = [tuple(map(int, one)) for one in np.argwhere(part.mask)]
        for start in range(0, len(items), _ITEMS):
            yield Share(path, number, tuple(items[start : start + _ITEMS]))


def _bytes_of(total: int, mask: np.ndarray, items: int) -> int:
    return total * items // max(1, int(mask.sum()))
