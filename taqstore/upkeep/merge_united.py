"""Groups that are united in a merge, item by item: what two machines measured of one model.

Images of judged trajectories are the same where prompt, seed and guidance weight are, whatever
their numbers; an item that both stores have must be the same in both, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from taqstore.errors import LayoutError, TaqError, problem
from taqstore.layout.item_records import Item
from taqstore.layout.template import Array
from taqstore.names import SCORES, SENSITIVITY, TRAJECTORIES
from taqstore.store.groups import MADE_BY
from taqstore.upkeep.merge_parts import Part

UNITED = (TRAJECTORIES, SENSITIVITY, SCORES)
"""Kinds of groups that are united. All others are concatenated."""
ALONE = (SENSITIVITY, SCORES)
"""Those that are taken where one store alone has them."""
_IDENTITY = ("prompt", "seed", "cfg_weight")

Identity = tuple[Any, ...]
Read = Callable[[Part, Array, Item], Iterator[np.ndarray | None]]


def united(
    parts: Mapping[str, Sequence[Part | None]], *, offset: int
) -> dict[str, tuple[Part, ...]]:
    """Parts whose images are numbered alike: those of the second store as the first has them.

    Parameters
    ----------
    parts
        Of both stores by path, None where a store has none.
    offset
        Added to numbers of images that the first store does not have.

    Raises
    ------
    LayoutError
        Two groups were made otherwise.
    TaqError
        Two images have one number.
    """
    known: dict[Identity, int] = {}
    for first, _ in parts.values():
        if first is not None and "image" in first.template.coords:
            known |= dict(zip(_identities(first), first.labels.tolist(), strict=True))
    found = {}
    for path, (first, second) in parts.items():
        if second is not None and "image" in second.template.coords:
            second = _numbered(second, known, offset)
        if first is not None and second is not None:
            _check(path, first, second)
        found[path] = tuple(part for part in (first, second) if part is not None)
    return found


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
    if differing:
        what = f"the stores made {path} otherwise: {', '.join(differing)} differ"
        raise LayoutError(problem(what, remedy="measure them in the same way"))
    if "image" not in first.template.coords:
        return
    of = dict(zip(first.labels.tolist(), _identities(first), strict=True))
    for label, one in zip(second.labels.tolist(), _identities(second), strict=True):
        if of.get(label, one) != one:
            what = f"both stores have an image {label}, of different prompts or seeds"
            raise TaqError(problem(what, where=path, remedy="--renumber numbers the second's anew"))


def rows_of(first: Part, second: Part) -> np.ndarray:
    """Where each image of the second is in what both are together: the first's, then new ones."""
    ours, theirs = first.labels.tolist(), second.labels.tolist()
    fresh = [label for label in theirs if label not in ours]
    places = {label: place for place, label in enumerate([*ours, *fresh])}
    return np.array([places[label] for label in theirs], np.int64)


def fresh_of(first: Part, second: Part) -> Part:
    """The second without the images that the first has too."""
    return second.taking(~np.isin(second.labels, first.labels))


def check_shared(path: str, first: Part, second: Part, read: Read) -> None:
    """Compare items that both have.

    Raises
    ------
    TaqError
        One differs.
    """
    rows = rows_of(first, second)
    for item in map(tuple, np.argwhere(second.mask).tolist()):
        ours = (int(rows[item[0]]), *item[1:])
        if ours[0] >= len(first.labels) or not first.mask[ours]:
            continue
        for array in first.template.arrays:
            pairs = zip(read(first, array, ours), read(second, array, item), strict=True)
            for a, b in pairs:
                if _bytes(a) != _bytes(b):
                    what = f"the stores differ in {array.name} of item {_named(first, ours)}"
                    remedy = "--duplicates skip takes the first's"
                    raise TaqError(problem(what, where=path, remedy=remedy))


def _bytes(values: np.ndarray | None) -> bytes | None:
    return None if values is None else values.tobytes()


def _named(part: Part, item: Item) -> str:
    template = part.template
    labels = [template.coords[dim][1][i] for dim, i in zip(template.item_dims, item, strict=True)]
    return ", ".join(map(str, labels))
