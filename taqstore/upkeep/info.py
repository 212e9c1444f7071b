"""Info: what a store holds, how it is laid out, and how much of it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.arrays.inner_chunks import codecs_of
from taqstore.arrays.plain import PlainArray, PlainGroups
from taqstore.errors import StoreError
from taqstore.names import dimension_order
from taqstore.place.sizes import format_bytes
from taqstore.run.dealing import Each, one_by_one
from taqstore.store.given import handed
from taqstore.store.groups import dimension_names
from taqstore.store.leftovers import find_leftovers
from taqstore.upkeep.kept import describe_sensitivities, describe_sets, describe_trajectories
from taqstore.upkeep.made_by import describe_run

if TYPE_CHECKING:
    import xarray as xr
    import zarr

    from taqstore.kinds.nonfinite import NonFinite
    from taqstore.store.reader import Store

LOOKED_AT = 1000
"""Batches whose non-finite values are counted here: each is a file, 0.4 ms; `verify` counts all."""


@handed
def describe_store(store: Store, *, each: Each = one_by_one) -> dict[str, Any]:
    """Everything `taqstore info` shows, as a JSON document.

    Parameters
    ----------
    each
        Like `map`: who looks at the groups, one a part. The document does not depend on it.
    """
    groups, damaged = [], {}
    handle = _Handle(store)
    plain: Any = handle.groups
    for path, found in zip(store, each(partial(_looked_at, handle), store), strict=True):
        if isinstance(found, StoreError):
            damaged[path] = str(found)
        else:
            groups.append(found)
    whole = {group["group"]: plain[group["group"]] for group in groups}
    masks = {path: store.mask(path) for path in whole}
    return {
        "store": str(store.location),
        "format": store.root.format,
        "uuid": store.root.uuid,
        "digest": store.digest,
        "stored_bytes": sum(g["stored_bytes"] for g in groups),
        "run": describe_run(whole, store.provenance),
        "groups": groups,
        "weight_sets": describe_sets(whole),
        "trajectories": describe_trajectories(whole, masks),
        "sensitivities": describe_sensitivities(whole, masks),
        "coverage": _coverage(whole),
        **_nonfinite(handle, list(whole), each),
        "provenance": store.provenance,
        "damaged": damaged,
        "notes": [*_bad_records(store), *_leftovers(store)],
    }


class _Handle:
    """An open store that goes to other processes as its address."""

    def __init__(self, store: Store) -> None:
        self.store, self.groups = store, PlainGroups(store)

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_again, (self.store.opener(),)


def _opened_again(opener: Callable[[], Store]) -> _Handle:
    return _Handle(opener())


def _looked_at(handle: _Handle, path: str) -> dict[str, Any] | StoreError:
    try:
        return _describe_group(handle, path)
    except StoreError as error:
        return error


def _coverage(groups: Mapping[str, xr.Dataset]) -> dict[str, Any] | None:
    """Weights of the model whose inputs were observed; None where the store does not tell."""
    from taqstore.kinds.coverage import coverage

    found = coverage(groups)
    if found is None:
        return None
    return {
        "observed_weights": found.observed,
        "model_weights": found.total,
        "percent": round(found.percent, 1),
    }


def _bad_records(store: Store) -> list[str]:
    return [f"provenance record {bad.number}: {bad.found}" for bad in store.bad_records]


def _leftovers(store: Store) -> list[str]:
    found = find_leftovers(store.location)
    return [f"{one.path}: {one.what}; taqstore repair removes what is safe" for one in found]


@handed
def describe_group(store: Store, path: str) -> dict[str, Any]:
    """One group: dims, coordinates, variables with their layout, share written, non-finite values.

    Raises
    ------
    MissingError
        No such group.
    """
    handle = _Handle(store)
    return {**_describe_group(handle, path), **_nonfinite(handle, [path])}


def _nonfinite(handle: _Handle, paths: Sequence[str], each: Each = one_by_one) -> dict[str, Any]:
    """Values that are no numbers, and the groups of too many batches to look for them."""
    many = [path for path in paths if handle.groups[path].sizes.get("batch", 0) > LOOKED_AT]
    looked_at = [path for path in paths if path not in many]
    from taqstore.kinds.nonfinite import counted

    parts = dict.fromkeys(map(counted, looked_at))
    found = list(chain.from_iterable(each(partial(_counted, handle), parts)))
    found.sort(key=lambda one: one.order)
    return {"nonfinite": [one.document for one in found], "nonfinite_unknown": many}


def _counted(handle: _Handle, path: str) -> list[NonFinite]:
    from taqstore.kinds.nonfinite import nonfinite

    if path not in handle.store:
        return []
    groups: Any = handle.groups
    return nonfinite(groups, [path], rollups=True)


def _describe_group(handle: _Handle, path: str) -> dict[str, Any]:
    store, dataset = handle.store, handle.groups[path]
    node = store.documents(path)
    folder = None if store.location.folder is None else store.location.folder / path
    mask = store.mask(path)
    marker: Any = node.attrs["taqstore"]
    dims = sorted(dataset.sizes, key=dimension_order)
    sizes = store.stored_bytes(path)
    variables = [
        _describe_variable(node[name], folder, None if sizes is None else sizes[name])
        for name in dataset.data_vars
    ]
    return {
        "group": path,
        "kind": marker["kind"],
        "dims": {d: int(dataset.sizes[d]) for d in dims},
        "coords": {n: _describe_coordinate(c) for n, c in dataset.coords.items()},
        "items": {"dims": marker["item_dims"], "written": int(mask.sum()), "total": mask.size},
        "written_percent": round(100 * float(mask.mean()), 1) if mask.size else 100.0,
        "stored_bytes": sum(v["stored_bytes"] for v in variables),
        "logical_bytes": sum(v["logical_bytes"] for v in variables),
        "variables": variables,
    }


def _describe_variable(array: Any, folder: Path | None, size: int | None) -> dict[str, Any]:
    stored = _stored_bytes(array, folder) if size is None else size
    logical = int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize
    return {
        "name": array.basename,
        "dims": list(dimension_names(array)),
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "chunks": list(array.chunks),
        "shards": None if array.shards is None else list(array.shards),
        "codecs": _codec_names(array),
        "stored_bytes": stored,
        "logical_bytes": logical,
        "ratio": round(logical / stored, 2) if stored else None,
        "description": array.attrs.get("description", ""),
    }


def _codec_names(array: zarr.Array[Any]) -> list[str]:
    codecs = codecs_of(array)
    if codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    return [codec["name"] for codec in codecs]


def _stored_bytes(array: zarr.Array[Any], folder: Path | None) -> int:
    if folder is None:
        return int(array.nbytes_stored())
    return sum(
        os.lstat(os.path.join(base, name)).st_size
        for base, _, names in os.walk(folder / array.basename)
        for name in names
    )


def _describe_coordinate(coordinate: PlainArray) -> dict[str, Any]:
    values = coordinate.values
    row: dict[str, Any] = {"dims": list(coordinate.dims), "dtype": str(values.dtype)}
    if values.dtype.kind in "iuf" and values.size:
        row |= {"min": _plain(np.nanmin(values)), "max": _plain(np.nanmax(values))}
    elif values.size:
        row |= {"first": _plain(values.flat[0]), "last": _plain(values.flat[-1])}
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def summary_lines(description: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows for the overview table: group, dims, variables, stored, ratio, written."""
    rows: list[tuple[str, ...]] = []
    for group in description["groups"]:
        dims = " ".join(f"{d}={n}" for d, n in group["dims"].items())
        ratio = group["logical_bytes"] / group["stored_bytes"] if group["stored_bytes"] else 0.0
        rows.append(
            (
                group["group"],
                dims,
                str(len(group["variables"])),
                format_bytes(group["stored_bytes"]),
                f"{ratio:.2f}",
                f"{group['written_percent']:g} %",
            )
        )
    return rows
