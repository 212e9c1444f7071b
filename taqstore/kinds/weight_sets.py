"""Named sets of quantized weights: where each lies in a store, and which one is meant.

A set is `weights/<set>/<site>`, with `weights/<set>/reconstruction` where blocks were optimised.
The set `adaround` has its `reconstruction` at the root; in stores of older versions its sites are
`weights/<site>`, the old place, and stay there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from taqstore.asked import meant
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.names import RECONSTRUCTION, WEIGHTS, site_of, site_rank, split_group
from taqstore.store.given import handed

if TYPE_CHECKING:
    import xarray as xr

Groups = Mapping[str, "xr.Dataset"]

ADAROUND = "adaround"
# What rounds weights by itself where a set could be named: `taqstore evaluate --variant`.
FORMATS = ("float", "rtn", "clipped", "mlx", "comfy", "comfy-gptq", "mixed")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def is_set_name(text: str) -> bool:
    """Whether a text could be the name of a set: it is no name of a file that weights come in."""
    return _NAME.fullmatch(text) is not None


def check_set(name: str) -> str:
    """The name of a set, as it then is.

    Raises
    ------
    MisuseError
        No set can be called so.
    """
    if _NAME.fullmatch(name) is None or name == RECONSTRUCTION:
        what = f"{name!r} is no name of a weight set"
        remedy = "a small letter, then small letters, digits, - and _, 32 at most"
        raise MisuseError(problem(what, remedy=remedy))
    if name.split("-")[0] in FORMATS:
        what = f"{name!r} is no name of a weight set: taqstore evaluate calls its own roundings so"
        raise MisuseError(problem(what, remedy=f"do not begin with {', '.join(FORMATS)}"))
    return name


def set_folders(paths: Iterable[str]) -> dict[str, str]:
    """Folder of each set among the paths of a store's groups, by name.

    `weights` itself is the old place of the set `adaround`; where both are there, it is left alone.
    """
    folders = {split_group(path)[0] for path in paths if _is_site(site_of(path))}
    below = f"{WEIGHTS}/"
    found = {ADAROUND: WEIGHTS} if WEIGHTS in folders else {}
    found |= {folder.removeprefix(below): folder for folder in folders if folder.startswith(below)}
    return {name: found[name] for name in sorted(found) if _NAME.fullmatch(name)}


def _is_site(name: str) -> bool:
    return "." in name


def folder_of(paths: Iterable[str], name: str) -> str:
    """Folder that a set lies in; of one that is not there, the folder it is to be made in."""
    return set_folders(paths).get(name, f"{WEIGHTS}/{name}")


def reconstruction_path(name: str) -> str:
    """Path of the group with the errors of a set's blocks, whether it is there or not."""
    return RECONSTRUCTION if name == ADAROUND else f"{WEIGHTS}/{name}/{RECONSTRUCTION}"


@handed
def weight_sets(groups: Groups) -> tuple[str, ...]:
    """Sets of a store that hold a layer at least, by name."""
    return tuple(
        name
        for name, folder in set_folders(groups).items()
        if any(groups[path].sizes["layer"] for path in _site_paths(groups, folder))
    )


def chosen_set(groups: Groups, asked: str | None = None) -> str:
    """The set that is asked for, or the only one there is.

    Raises
    ------
    MisuseError
        There are several and none is asked for.
    MissingError
        There is none, or not this one.
    """
    known = set_folders(groups)
    if asked is not None and asked in known:
        return asked
    # One that nothing is written of yet is meant where there is no other.
    there = weight_sets(groups) or tuple(known)
    if not there:
        remedy = "taqstore adaround makes them"
        raise MissingError(problem("no quantized weights in the store", remedy=remedy))
    if asked is not None:
        what = f"no weight set {asked!r} in the store"
        raise MissingError(problem(what, remedy=meant(asked, there)))
    if len(there) > 1:
        remedy = f"choose one with --weights: {', '.join(there)}"
        raise MisuseError(problem("the store has several weight sets", remedy=remedy))
    return there[0]


def set_groups(groups: Groups, name: str) -> dict[str, xr.Dataset]:
    """Groups of a set by what follows its folder, such as `mlp.fc2`, in the order of a block.

    Linears of one site that differ in outputs lie in several: `adaln.linear` and
    `adaln.linear.o3072`.
    """
    folder = folder_of(groups, name)
    return {site_of(path): groups[path] for path in _site_paths(groups, folder)}


def unwritten(groups: Groups, name: str) -> int:
    """Layers of a set that hold no weights: not rounded yet, or of blocks that were left out.

    0 for groups that are no store: these do not say what is missing.
    """
    mask = getattr(groups, "mask", None)
    if mask is None:
        return 0
    return sum(int((~mask(path)).sum()) for path in _site_paths(groups, folder_of(groups, name)))


def _site_paths(paths: Iterable[str], folder: str) -> list[str]:
    found = [p for p in paths if split_group(p)[0] == folder and _is_site(site_of(p))]
    return sorted(found, key=lambda path: (site_rank(site_of(path)), path))


def width_sites(shapes: Mapping[Any, tuple[int, int]], site: str) -> dict[str, list[Any]]:
    """Groups that the linears of a site need, and who lies in each.

    Parameters
    ----------
    shapes
        Outputs and inputs of each linear, by whatever stands for it.
    site
        Such as `adaln.linear`.

    Returns
    -------
    `adaln.linear` for those of the commonest number of outputs (the larger one of a tie),
    `adaln.linear.o3072` for others.
    """
    by_width: dict[int, list[Any]] = {}
    for linear, (out, _) in shapes.items():
        by_width.setdefault(out, []).append(linear)
    ordered = sorted(by_width, key=lambda out: (-len(by_width[out]), -out))
    return {
        site if place == 0 else f"{site}.o{out}": by_width[out] for place, out in enumerate(ordered)
    }
