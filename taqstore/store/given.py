"""What is handed to a function as a group or as a store: other things get a line on what to pass.

At a prompt everything looks alike: a store, a group of it, one variable, a path. A function that
is `handed` says at once which of these it takes, instead of failing inside for want of a variable.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar, cast, overload

from taqstore.errors import MisuseError, problem
from taqstore.names import ACTIVATIONS, KINDS, kind_of, site_of

_P = ParamSpec("_P")
_R = TypeVar("_R")

GROUP = ("xr.Dataset",)
STORE = ("Store",)
GROUPS = ("Mapping[str, xr.Dataset]", "Groups")
RESULTS = ("Results",)
"""Annotations of parameters that are a group, a store, a store or what is like one, or answers."""
_EVERY = (*GROUP, *STORE, *GROUPS, *RESULTS)
_WANTED = {
    **dict.fromkeys(GROUP, "one group, a Dataset"),
    **dict.fromkeys((*STORE, *GROUPS), "a whole store"),
    **dict.fromkeys(RESULTS, "a dict of results"),
}
_NONE = " | None"

_SITE = "mlp.fc2"
_OPEN = "taqstore.open_store"


@overload
def handed(function: Callable[_P, _R], /) -> Callable[_P, _R]: ...
@overload
def handed(
    *, source: str = ..., others: str = ..., blocks: bool = ...
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]: ...
def handed(
    function: Any = None,
    /,
    *,
    source: str = ACTIVATIONS,
    others: str = "",
    blocks: bool = False,
) -> Any:
    """A decorator: parameters annotated as a group or a store are given one, or a line says so.

    Parameters
    ----------
    source
        Prefix of the group that a message names.
    others
        Put behind the remedy where a whole store was given in the place of a group.
    blocks
        The function reads whole arrays: it is given groups and stores behind dask, unless they were
        opened with ``chunks=None``.

    Raises
    ------
    MisuseError
        From the function: something else was given.
    """
    example = f"{source}/{_SITE}"
    if function is None:
        return lambda named: handed_to(named, example, others, blocks=blocks)
    return handed_to(function, example, others)


def handed_to(
    function: Callable[_P, _R], example: str, others: str, *, blocks: bool = False
) -> Callable[_P, _R]:
    """The function with its groups and stores checked; a message names `example`."""
    names = list(signature(function).parameters)
    kinds = {name: str(kind) for name, kind in function.__annotations__.items()}
    wanted = {name: kind for name in names if (kind := _bare(kinds.get(name, ""))) in _EVERY}

    @wraps(function)
    def checked(*args: _P.args, **given: _P.kwargs) -> _R:
        values: dict[str, Any] = {**dict(zip(names, args, strict=False)), **given}
        for name, kind in wanted.items():
            open_end = values.get(name, 0) is None and kinds[name].endswith(_NONE)
            if name in values and not open_end and not _fits(values[name], kind):
                before = [values[other] for other in names[: names.index(name)] if other in values]
                takes_site = "site" in names
                call = _Call(function.__name__, before, values[name], example, others, takes_site)
                raise call.refusal(kind)
        if not blocks:
            return function(*args, **given)
        behind = {name: put_behind_dask(values[name]) for name in wanted if name in values}
        put = [behind.get(name, value) for name, value in zip(names, args, strict=False)]
        # Beyond the names there are none, or the function says that there are too many.
        rest: Any = {name: behind.get(name, value) for name, value in given.items()}
        return cast("Callable[..., _R]", function)(*put, *args[len(put) :], **rest)

    return checked


def put_behind_dask(value: Any) -> Any:
    """A group, a store or what is like one, as `chunks="auto"` opens what ``"late"`` left."""
    from xarray import Dataset

    from taqstore.arrays.dask_blocks import behind_dask

    if isinstance(value, Dataset):
        return behind_dask(value)
    if type(value) is dict:
        return {name: put_behind_dask(one) for name, one in value.items()}
    return value.blocks() if hasattr(value, "blocks") else value


def _bare(kind: str) -> str:
    return kind.removesuffix(_NONE)


def _fits(value: Any, kind: str) -> bool:
    if kind in GROUP:
        return _is_group(value)
    # Datasets and trees of xarray are mappings too, and no stores.
    stands = isinstance(value, Mapping) and not _is_of_xarray(value)
    if kind in STORE:
        return stands and hasattr(value, "location")
    if kind in RESULTS and type(value) is not dict:
        return False
    # The groups of a plain dict are at hand; those of a store are not opened for this.
    return stands and (type(value) is not dict or all(map(_is_group, value.values())))


def _is_group(value: Any) -> bool:
    from taqstore.arrays.plain import PlainGroup

    return isinstance(value, (PlainGroup, *_of_xarray("Dataset")))


def _is_of_xarray(value: Any) -> bool:
    return isinstance(value, _of_xarray("Dataset", "DataArray", "DataTree"))


def _of_xarray(*names: str) -> tuple[type, ...]:
    """Classes of xarray; while it is not loaded nothing is of one, and nobody waits for it."""
    module = sys.modules.get("xarray")
    return tuple(getattr(module, name) for name in names) if module else ()


@dataclass(frozen=True)
class _Call:
    """A call that was given something else, after `before`."""

    who: str
    before: list[Any]
    value: Any
    example: str
    others: str
    takes_site: bool

    def refusal(self, kind: str) -> MisuseError:
        """What was found, and what to write instead."""
        if kind in RESULTS:
            remedy = "give it what analyze or diff of taqstore.query gave"
        else:
            remedy = self._of_group() if kind in GROUP else self._of_store()
        what = f"{self.who} takes {_WANTED[kind]}"
        return MisuseError(problem(what, found=_called(self.value), remedy=remedy))

    def _of_group(self) -> str:
        value, key, opened, tail = self.value, self.example, "store", ""
        if _is_tree(value):
            at = "" if value.path.strip("/") else f'["{key}"]'
            return self._typed(f"tree{at}.to_dataset()", site_of(key))
        if isinstance(value, str | os.PathLike):
            address, key = _split(os.fspath(value), key)
            opened = f'{_OPEN}("{address}")'
        elif isinstance(value, Mapping):
            key = _likeliest(value, key)
            tail = f", {self.others}" if self.others else ""
        return self._typed(f'{opened}["{key}"]', site_of(key)) + tail

    def _of_store(self) -> str:
        value = self.value
        if isinstance(value, str | os.PathLike):
            return self._typed(f'{_OPEN}("{_split(os.fspath(value), "")[0]}")')
        return self._typed("store") + f', with store = {_OPEN}("store.zarr")'

    def _typed(self, argument: str, site: str = "") -> str:
        before = [repr(v) if isinstance(v, str) else "..." for v in self.before]
        named = [f'site="{site}"'] if site and self.takes_site else []
        return f"write {self.who}({', '.join([*before, argument, *named])})".replace("'", '"')


def _called(value: Any) -> str:
    from xarray import DataArray, Dataset

    if isinstance(value, DataArray):
        return f"one variable, {value.name!r}" if value.name else "one array"
    if isinstance(value, Dataset):
        return f"one group of {value.attrs.get('kind', 'no store')}"
    if _is_tree(value):
        return "a DataTree"
    if hasattr(value, "location"):
        return f"a store of {len(value)} groups"
    if isinstance(value, str | os.PathLike):
        return f"the path {os.fspath(value)!r}"
    return "None" if value is None else type(value).__name__


def _is_tree(value: Any) -> bool:
    from xarray import DataTree

    return isinstance(value, DataTree)


def _likeliest(groups: Mapping[str, Any], example: str) -> str:
    """Key of a store that is most like the example: its own, of its kind, or of its site."""
    keys = list(groups)
    of_kind = [key for key in keys if kind_of(key) == kind_of(example)]
    of_site = [key for key in keys if site_of(key) == site_of(example)]
    return example if example in keys else next(iter([*of_site, *of_kind, *keys]), example)


def _split(path: str, key: str) -> tuple[str, str]:
    """A path as the store's and the key of a group in it, where it goes on into one."""
    parts = path.rstrip("/").split("/")
    for place, part in enumerate(parts[1:], 1):
        if part in KINDS and parts[place - 1].endswith(".zarr"):
            return "/".join(parts[:place]), "/".join(parts[place:])
    return ("store.zarr", path) if parts[0] in KINDS and len(parts) > 1 else (path, key)
