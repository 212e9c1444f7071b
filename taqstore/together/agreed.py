"""What several stores are together: which groups, and the parts of each, checked and numbered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from taqstore.asked import meant
from taqstore.errors import MissingError, problem
from taqstore.layout.template import Template
from taqstore.names import TRAJECTORIES, kind_of, split_group
from taqstore.store.reader import Store
from taqstore.together.checks import (
    Duplicates,
    Known,
    check_alike,
    check_distinct,
    first_free,
    without_doubles,
)
from taqstore.together.parts import Part, can_grow, joined, read_part
from taqstore.together.united import ALONE, UNITED, Unity, check_shared, fresh_of, rows_of


@dataclass(frozen=True)
class Together:
    """Groups of several stores, put together.

    Parameters
    ----------
    parts
        Of each group, in the order of the stores; of a store that lacks it there is none.
    offsets
        What was added to the numbers of each store's images.
    """

    parts: Mapping[str, Sequence[Part]]
    offsets: Sequence[int]

    def template(self, path: str) -> Template:
        """What a group holds, of all stores together."""
        parts = self.parts[path]
        return joined(fresh_of(parts) if kind_of(path) in UNITED else parts)

    def rows(self, path: str) -> list[np.ndarray]:
        """Where each image or batch of each part is in the group."""
        parts = self.parts[path]
        if kind_of(path) in UNITED:
            return rows_of(parts)
        ends = np.cumsum([0, *(len(part.places) for part in parts)])
        return [np.arange(end, end + len(p.places)) for end, p in zip(ends, parts, strict=False)]


def put_together(
    stores: Sequence[Store],
    paths: Sequence[str],
    *,
    renumber: bool,
    duplicates: Duplicates,
    trust: bool = False,
) -> Together:
    """Compare groups of several stores, number their images, and say what they are together.

    Parameters
    ----------
    paths
        Groups, as of `shared_groups`.
    renumber
        Number each store's images after those of the stores before it.
    duplicates
        What to do with images that an earlier store has too.
    trust
        Believe labels and records where they tell which images and items are the same, unread.

    Raises
    ------
    LayoutError
        Two stores differ in steps, sigmas, layers, layouts, model or configuration.
    TaqError
        Image ids collide, or there are duplicates.
    """
    found = {p: [read_part(s, p) if p in s.paths else None for s in stores] for p in paths}
    check_alike({path: [p for p in parts if p is not None] for path, parts in found.items()})
    known, unity = Known(), Unity()
    taken: dict[str, list[Part]] = {p: [] for p in paths if kind_of(p) not in UNITED}
    offsets = [0] * len(stores)
    for number in range(len(stores)):
        ours = {p: part for p, parts in found.items() if (part := parts[number]) is not None}
        united = {path: part for path, part in ours.items() if path not in taken}
        ours = {path: part for path, part in ours.items() if path in taken}
        ours = without_doubles(ours, *known.doubles(ours, trust=trust), duplicates)
        if renumber and number:
            every = (part for parts in taken.values() for part in parts)
            offsets[number] = max(first_free(every), unity.first_free)
            ours = {path: part.renumbered(offsets[number]) for path, part in ours.items()}
        for path, part in ours.items():
            check_distinct(path, taken[path], part)
            taken[path].append(part)
        unity.add(united, offset=offsets[number])
    if duplicates != "skip":
        for path, parts in unity.parts.items():
            check_shared(path, parts, trust=trust)
    every_part = {**taken, **unity.parts}
    return Together({path: every_part[path] for path in paths}, offsets)


def shared_groups(
    stores: Sequence[Store], groups: Sequence[str], notes: list[str], *, leave_out: bool = False
) -> list[str]:
    """Groups that stores have together: all that are made of images or batches, or those named.

    Parameters
    ----------
    notes
        Told of what is left out, a line each.
    leave_out
        Leave out what some of the stores lack, unless it is named.

    Raises
    ------
    MissingError
        A group is in some of the stores only, or none can be put together.
    """
    every = sorted({path for store in stores for path in store})
    growing = [p for p in every if _can_be_joined(stores, p)]
    notes += [f"{p} is not made of images or batches; left out" for p in every if p not in growing]
    lacking = {path: [s for s in stores if path not in s.paths] for path in growing}
    alone = [path for path in growing if _may_be_alone(path) and lacking[path]]
    if not groups:
        notes += [f"{path} is not of all stores, and can be made again; left out" for path in alone]
    if leave_out and not groups:
        part = [p for p in growing if lacking[p] and kind_of(p) not in ALONE and p not in alone]
        notes += [f"{path} is not of {lacking[path][0].location}; left out" for path in part]
        alone += part
    wanted = list(dict.fromkeys(groups)) or [path for path in growing if path not in alone]
    for path in wanted:
        if path not in growing:
            raise MissingError(problem(f"no group {path!r} to merge", remedy=meant(path, growing)))
        if lacking[path] and kind_of(path) not in ALONE:
            raise lacks(path, lacking[path][0])
    if not wanted:
        raise MissingError(problem("the stores have no group made of images or batches"))
    return wanted


def lacks(path: str, store: Store) -> MissingError:
    """The error of a group that one of several stores has not."""
    remedy = "name the groups to merge with --group"
    return MissingError(problem(f"no group {path!r}", where=str(store.location), remedy=remedy))


def _can_be_joined(stores: Sequence[Store], path: str) -> bool:
    return kind_of(path) in UNITED or all(can_grow(s, path) for s in stores if path in s.paths)


def _may_be_alone(path: str) -> bool:
    """Whether a group says nothing of a store that lacks it: trajectories of judged images."""
    return split_group(path)[0] == TRAJECTORIES
