"""What a store holds, and slices of it: info and query over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.errors import TaqError
from taqstore.serve.api.bounds import check_rows
from taqstore.serve.http.endpoint import Endpoint, Tables
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened, python_call

if TYPE_CHECKING:
    import xarray as xr

    from taqstore.store.reader import Store


def _text(name: str, help: str, **particulars: Any) -> Option:
    return Option(name, help, str, **particulars)


_LAYER = _text("layer", "Glob over layers (mm*.img), or any spelling of one.")
SLICING = (
    _LAYER,
    _text("step", "Step index, or A:B:S as Python's range (B left out)."),
    _text("sigma", "LO:HI, both ends included; either may be left out."),
    _text("image", "Image id, or A:B:S."),
    _text("batch", "Batch, or A:B:S."),
    _text("channel", "Channel, or A:B:S."),
    _text("stream", "img, txt or uni."),
    _text("block", "Block (mm3, 3), glob, or A:B on block streams."),
)
"""Of `taqstore query`: what is kept."""
REDUCE = Option(
    "reductions",
    "DIM=HOW; HOW is max, min, mean, std, median or pNN. Repeatable, in order.",
    "word",
    (),
    many=True,
    flag="reduce",
)
VARIABLE = Option(
    "variable", "A variable; repeatable [default: all of the group].", "word", (), many=True
)


def endpoints() -> list[Endpoint]:
    """Info, groups and query."""
    here = f"{__name__}:"
    store = "/stores/{store}"
    return [
        Endpoint(store, "What a store holds: all that `taqstore info --json` tells.",
                 f"{here}info"),
        Endpoint(f"{store}/groups", "Groups of a store: dims, labels and variables.",
                 f"{here}groups"),
        Endpoint(f"{store}/groups/{{group:path}}", "One group: layout, share written, sizes.",
                 f"{here}group"),
        Endpoint(f"{store}/query/{{group:path}}", "A group sliced and reduced.", f"{here}query",
                 "tables", (VARIABLE, *SLICING, REDUCE)),
    ]  # fmt: skip


def info(service: Service, *, store: str) -> dict[str, Any]:
    """As ``taqstore info --json``, with the command."""
    from taqstore.upkeep.info import describe_store

    found = describe_store(_as_laid_out(service.store(store)))
    return {**found, **_info_shown(service.address(store))}


def group(service: Service, *, store: str, group: str) -> dict[str, Any]:
    """As ``taqstore info STORE GROUP --json``, with the command."""
    from taqstore.upkeep.info import describe_group

    found = describe_group(_as_laid_out(service.store(store)), group)
    return {**found, **_info_shown(service.address(store), group)}


def _as_laid_out(store: Store) -> Store:
    return store.reading(chunks=None, checksum=True, incomplete=False)


def _info_shown(address: str, *group: str) -> dict[str, str]:
    line = command_line("info", address, after=[*group, "--json"])
    word = "describe_group" if group else "describe_store"
    call = python_call(f"taqstore.upkeep.{word}", ["store", *map(repr, group)], result="found")
    return {"cli": line, "python": "\n".join(("import taqstore", "", opened(address), call))}


MOST_LABELS = 1000
"""Of a coordinate that is told label by label."""


def groups(service: Service, *, store: str) -> dict[str, Any]:
    """Groups with the labels of their coordinates, from metadata alone."""
    there = service.store(store)
    return {"store": store, "version": service.version(store),
            "groups": [_described(path, there[path]) for path in there]}  # fmt: skip


def _described(path: str, dataset: xr.Dataset) -> dict[str, Any]:
    from taqstore.names import kind_of

    return {
        "group": path,
        "kind": kind_of(path),
        "dims": {str(dim): size for dim, size in dataset.sizes.items()},
        "coords": {
            str(name): {
                "dims": list(coordinate.dims),
                "dtype": str(coordinate.dtype),
                **({"values": coordinate.values} if coordinate.size <= MOST_LABELS else {}),
            }
            for name, coordinate in dataset.coords.items()
        },
        "variables": {
            str(name): {"dims": list(array.dims), "dtype": str(array.dtype)}
            for name, array in dataset.data_vars.items()
        },
    }


def query(
    service: Service,
    *,
    store: str,
    group: str,
    variable: tuple[str, ...] = (),
    reductions: tuple[str, ...] = (),
    **selection: str,
) -> Tables:
    """Slices and reductions of a group, as `taqstore query` prints them.

    Raises
    ------
    TaqError
        As of `select` and `reduce`; or the tables would be too large.
    """
    from taqstore.files.tables import check_one_kind, to_tables
    from taqstore.kinds.nonfinite import counted
    from taqstore.names import site_of
    from taqstore.query.notes import nonfinite_notes
    from taqstore.query.reduction import parts_of
    from taqstore.query.select import reduce, select
    from taqstore.query.sites import variables_of

    for spec in reductions:
        parts_of(spec)
    there = service.store(store)
    dataset = variables_of(there, group, variable)
    site = site_of(group) if "layer" in dataset.coords else ""
    dataset = reduce(select(dataset, site=site, **selection), *reductions)
    check_rows([dataset])
    notes: list[str] = []
    if (counting := counted(group.strip("/"))) in there:
        notes = nonfinite_notes({counting: select(there[counting], site=site, **selection)})
    if dataset.attrs.get("dropped"):
        notes.append(f"not numeric, left out: {dataset.attrs['dropped']}")
    apart = ""
    try:
        check_one_kind(dataset)
    except TaqError as error:
        apart = str(error)
    address = service.address(store)
    rows, values = (*SLICING, REDUCE), {**selection, "reductions": reductions}
    line = command_line("query", address, rows=rows, values=values, after=[group, *variable])
    code = _query_code(address, group, variable, reductions, selection, site)
    return Tables(to_tables(dataset), tuple(notes), line, code, apart)


def _query_code(
    address: str,
    group: str,
    variable: tuple[str, ...],
    reductions: tuple[str, ...],
    selection: Mapping[str, str],
    site: str,
) -> str:
    named = f"[{list(variable)!r}]" if variable else ""
    given = {**selection, "site": site or None}
    chosen = python_call("taqstore.query.select", [f"store[{group!r}]{named}"], given, result="x")
    again = [
        python_call("taqstore.query.reduce", ["x", *map(repr, reductions)], result="x")
    ] * bool(reductions)
    return "\n".join(("import taqstore", "", opened(address), chosen, *again))
