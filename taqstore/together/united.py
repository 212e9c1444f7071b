"""Groups that are united item by item: what several machines measured of one model.

Images of judged trajectories are the same where prompt, seed and guidance weight are, whatever
their numbers; an item that two stores have must be the same in both, to the byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, TaqError, problem
from taqstore.layout.item_records import Item
from taqstore.names import SCORES, SENSITIVITY, TRAJECTORIES
from taqstore.store.groups import GROWING, MADE_BY
from taqstore.together.checks import first_free
from taqstore.together.parts import Part
from taqstore.together.shards import Shards

UNITED = (TRAJECTORIES, SENSITIVITY, SCORES)
"""Kinds of groups that are united. All others are concatenated."""
ALONE = (SENSITIVITY, SCORES)
"""Those that are taken where one store alone has them."""
_IDENTITY = ("prompt", "seed", "cfg_weight")

Identity = tuple[Any, ...]


class Unity:
    """Parts of groups that are united, store after store, their images numbered alike."""

    def __init__(self) -> None:
        self._known: dict[Identity, int] = {}
        self.parts: dict[str, list[Part]] = {}

    @property
    def first_free(self) -> int:
        """The least number that no image of them has, nor a larger one."""
        every = (part for parts in self.parts.values() for part in parts)
        return first_free(part for part in every if part.grows in GROWING)

    def add(self, parts: Mapping[str, Part], *, offset: int) -> None:
        """The parts of one more store, numbered as the earlier ones have their images.

        Parameters
        ----------
        offset
            Added to numbers of images that no earlier store has.

        Raises
        ------
        LayoutError
            Two groups were made otherwise.
        TaqError
            Two images have one number.
        """
        known = dict(self._known)
        for path, part in parts.items():
            if "image" in part.template.coords:
                part = _numbered(part, known, offset)
                self._known |= dict(zip(_identities(part), part.labels.tolist(), strict=True))
            for earlier in self.parts.setdefault(path, []):
                _check(path, earlier, part)
            self.parts[path].append(part)


def _identities(part: Part) -> list[Identity]:
    coords = part.template.coords
    return list(zip(*(coords[name][1].tolist() for name in _IDENTITY), strict=True))


def _numbered(part: Part, known: Mapping[Identity, int], offset: int) -> Part:
    pairs = zip(_identities(part), part.labels.tolist(), strict=True)
    labels = np.array([known.get(one, label + offset) for one, label in pairs], np.int64)
    coords = {**part.template.coords, "image": (("image",), labels)}
    return replace(part, template=replace(part.template, coords=coords))


def _check(path: str, first: Part, second: Part) -> None:
    a, b = (part.template.attrs.get(MADE_BY, {}) for part in (first, second))
    differing = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    both = f"{first.store} and {second.store}"
    if differing:
        what = f"{both} made {path} otherwise: {', '.join(differing)} differ"
        raise LayoutError(problem(what, remedy="measure them in the same way"))
    if "image" not in first.template.coords:
        return
    of = dict(zip(first.labels.tolist(), _identities(first), strict=True))
    for label, one in zip(second.labels.tolist(), _identities(second), strict=True):
        if of.get(label, one) != one:
            what = f"both {both} have an image {label}, of different prompts or seeds"
            remedy = "--renumber numbers those of the later store anew"
            raise TaqError(problem(what, where=path, remedy=remedy))


def rows_of(parts: Sequence[Part]) -> list[np.ndarray]:
    """Where the images of each part are in what all are together: the first's, then new ones."""
    places: dict[Any, int] = {}
    found = []
    for part in parts:
        labels = part.labels.tolist()
        rows = [places.setdefault(label, len(places)) for label in labels]
        found.append(np.array(rows, np.int64))
    return found


def fresh_of(parts: Sequence[Part]) -> list[Part]:
    """Each part without the images that an earlier one has too."""
    seen: set[Any] = set()
    found = []
    for part in parts:
        labels = part.labels.tolist()
        found.append(part.taking(np.array([label not in seen for label in labels], bool)))
        seen.update(labels)
    return found


def check_shared(path: str, parts: Sequence[Part], *, trust: bool) -> None:
    """Compare items that several parts have.

    Parameters
    ----------
    trust
        Take files of one size and fingerprint for the same, unread.

    Raises
    ------
    TaqError
        One differs.
    """
    sources, seen = [Shards(part) for part in parts], dict[Item, tuple[Shards, Item]]()
    for source, rows in zip(sources, rows_of(parts), strict=True):
        for item in map(tuple, np.argwhere(source.part.mask).tolist()):
            ours = (int(rows[item[0]]), *item[1:])
            before = seen.setdefault(ours, (source, item))
            if before[0] is source or (trust and _told_same(before, (source, item))):
                continue
            name = _differing(before, (source, item))
            if name is not None:
                stores = f"{before[0].part.store} and {source.part.store}"
                what = f"{stores} differ in {name} of item {_named(source.part, item)}"
                remedy = "--duplicates skip takes the first one's"
                raise TaqError(problem(what, where=path, remedy=remedy))


def _told_same(first: tuple[Shards, Item], second: tuple[Shards, Item]) -> bool:
    known = [source.identities(item) for source, item in (first, second)]
    return known[0] is not None and known[0] == known[1]


def _differing(first: tuple[Shards, Item], second: tuple[Shards, Item]) -> str | None:
    """The first variable in which two items differ."""
    for mine, other in zip(first[0].of(first[1]), second[0].of(second[1]), strict=True):
        if _bytes(first[0].read(*mine)) != _bytes(second[0].read(*other)):
            return mine[0]
    return None


def _bytes(values: np.ndarray | None) -> bytes | None:
    return None if values is None else values.tobytes()


def _named(part: Part, item: Item) -> str:
    template = part.template
    labels = [template.coords[dim][1][i] for dim, i in zip(template.item_dims, item, strict=True)]
    return ", ".join(map(str, labels))
