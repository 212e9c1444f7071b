"""Weight sets: what rounding changed, what is left of the error of linears, errors of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.errors import MissingError, TaqError, problem
from taqstore.names import WEIGHTS
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened

if TYPE_CHECKING:
    import xarray as xr

NEAREST = "nearest"
SET = Option("set", "Weight set [default: the first there is].", "word")
BLOCK = Option("block", "Of this block alone, such as mm0 [default: all].", "word")
OTHER = Option(
    "other", "Another set on the same grid, or nearest: rounding to nearest.", "word", NEAREST
)
_ERRORS = ("linear_error", "nearest_error")


def sets(service: Service, *, store: str) -> dict[str, Any]:
    """Weight sets of a store.

    Returns
    -------
    ``sets``: what `taqstore info` says of each, with ``reconstruction``, whether errors of blocks
    are kept, and ``errors``, whether those of linears are.
    """
    from taqstore.kinds.weight_sets import reconstruction_path, set_groups
    from taqstore.upkeep.kept import describe_sets

    held = service.store(store)
    found = service.kept(store, ("weight sets",), partial(describe_sets, held))
    rows = [
        {
            **one,
            "reconstruction": reconstruction_path(one["set"]) in held,
            "errors": any("linear_error" in g for g in set_groups(held, one["set"]).values()),
        }
        for one in found
    ]
    address = service.address(store)
    code = ["import taqstore", "", opened(address), "names = taqstore.kinds.weight_sets(store)"]
    return {"sets": rows, "cli": command_line("info", address), "python": "\n".join(code)}


def linears(service: Service, *, store: str, set: str | None = None) -> dict[str, Any]:
    """Linears of a set: bits, groups, and what is left of the error of rounding to nearest.

    Returns
    -------
    ``set``, ``run`` (settings), ``blocks``; ``rows``: ``{"linear", "block", "site", "bits",
    "groups", "outputs", "inputs", "linear_error", "nearest_error", "left"}``: squared errors on
    the second moments of what was rounded and of rounding to nearest, and the first by the second,
    None where they are not kept; ``left``, the mean of these ratios.

    Raises
    ------
    MissingError
        There are no quantized weights, or not this set.
    """
    from taqstore.kinds.quantized_linears import linear_names_of, run_of

    held = service.store(store)
    name = _chosen(held, set)
    rows = service.kept(store, ("linears", name), partial(_rows, held, name))
    address = service.address(store)
    path = f"{WEIGHTS}/{name}/{rows[0]['group']}" if rows else WEIGHTS
    variable = "linear_error" if rows and rows[0]["linear_error"] is not None else "weight_bits"
    code = [
        "import taqstore",
        "from taqstore.kinds.weight_sets import set_groups",
        "",
        opened(address),
        f"sites = set_groups(store, {name!r})",
    ]
    known = [row["left"] for row in rows if row["left"] is not None]
    blocks = [one.block for one in linear_names_of(held, set=name) if one.in_block]
    return {
        "set": name,
        "run": run_of(held, name),
        "blocks": list(dict.fromkeys(blocks)),
        "rows": rows,
        "left": sum(known) / len(known) if known else None,
        "cli": command_line("query", address, after=[path, variable]),
        "python": "\n".join(code),
    }


def _chosen(held: Any, asked: str | None) -> str:
    from taqstore.kinds.weight_sets import chosen_set, weight_sets

    there = weight_sets(held)
    return chosen_set(held, asked or (there[0] if there else None))


def _rows(held: Any, name: str) -> list[dict[str, Any]]:
    from taqstore.kinds.quantized_linears import linear_names_of
    from taqstore.kinds.weight_sets import set_groups
    from taqstore.names import tensor_site

    small = {
        site: data[[v for v in ("weight_bits", *_ERRORS) if v in data]].load()
        for site, data in set_groups(held, name).items()
    }
    sizes = {site: data.sizes for site, data in set_groups(held, name).items()}
    rows = []
    for linear in linear_names_of(held, set=name):
        for site, data in small.items():
            if tensor_site(site) != linear.site or linear.layer not in data["layer"].values:
                continue
            one = data.sel(layer=linear.layer)
            one = one.sel(projection=linear.projection) if linear.projection else one
            rows.append(
                {
                    "linear": linear.full,
                    "block": linear.block,
                    "stream": linear.stream,
                    "site": linear.projection or linear.site,
                    "group": site,
                    "bits": int(one["weight_bits"]) if "weight_bits" in one else None,
                    "groups": sizes[site]["group"],
                    "outputs": sizes[site]["out"],
                    "inputs": sizes[site]["in"],
                    **_errors(one),
                }
            )
    return rows


def _errors(one: xr.Dataset) -> dict[str, float | None]:
    """Errors of a linear, and what is left of that of rounding to nearest."""
    if any(name not in one for name in _ERRORS):
        return dict.fromkeys((*_ERRORS, "left"))
    mine, nearest = (float(one[name]) for name in _ERRORS)
    left = mine / nearest if nearest > 0 else None
    return dict(zip((*_ERRORS, "left"), (mine, nearest, left), strict=True))


def changes(
    service: Service, *, store: str, other: str, set: str | None = None, block: str | None = None
) -> dict[str, Any]:
    """Shares of integers that differ from those nearest, or from another set, by linear.

    Returns
    -------
    ``set``, ``other``, ``note`` (why it is not told); ``rows``: ``{"linear", "block", "site",
    "weights", "at_ends", "changed", "largest"}``; ``blocks``: ``{"block", "weights", "changed"}``,
    means over the integers of a block; ``total``, the same of all.

    Raises
    ------
    MissingError
        No such set or block.
    """
    held = service.store(store)
    name = _chosen(held, set)
    key = ("changes", name, other, block)
    rows, note = service.kept(store, key, partial(_changes, service, store, name, other, block))
    address = service.address(store)
    code = [
        "import taqstore",
        "from taqstore.query.weight_changes import weight_changes",
        "",
        opened(address),
        _call(name, other, block),
    ]
    return {
        "set": name,
        "other": other,
        "note": note,
        "rows": rows,
        "blocks": _by_block(rows),
        "total": _share(rows),
        "cli": command_line("info", address),
        "python": "\n".join(code),
    }


def _call(name: str, other: str, block: str | None) -> str:
    if other == NEAREST:
        return (
            "from taqstore.export.packed.layouts import MLX\n"
            "from taqstore.pipelines.run.base_weights import base_weights\n"
            f"base = base_weights(store, MLX).tensors\n"
            f"changes = weight_changes(store, set={name!r}, block={block!r}, base=base)"
        )
    return f"changes = weight_changes(store, set={name!r}, block={block!r}, other={other!r})"


def _changes(
    service: Service, store: str, name: str, other: str, block: str | None
) -> tuple[list[dict[str, Any]], str]:
    from taqstore.query.weight_changes import weight_changes

    held, base, note = service.store(store), None, ""
    if other == NEAREST:
        try:
            base = _base(service, store)
        except TaqError as error:
            note = f"what is nearest is not known: {error}"
    second = None if other == NEAREST else other
    found = weight_changes(held, set=name, block=block, other=second, base=base)
    rows = [
        {
            "linear": one.name.full,
            "block": one.name.block,
            "site": one.name.projection or one.name.site,
            "stream": one.name.stream,
            "weights": one.weights,
            "at_ends": one.at_ends,
            "changed": one.changed,
            "largest": one.largest,
        }
        for one in found
    ]
    if not note and all(row["changed"] != row["changed"] for row in rows):
        note = f"no linear of {name} lies on the grid of {other}"
    return rows, note


def _base(service: Service, store: str) -> Mapping[str, Any]:
    """Parameters of the model that a store names, where they can be had without a network."""
    if service.base is None:
        what = "the weights of the model are not served"
        raise MissingError(problem(what, remedy="start taqstore serve where the model is"))
    return service.base(service.store(store))


def _by_block(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for block in dict.fromkeys(row["block"] for row in rows):
        mine = [row for row in rows if row["block"] == block]
        found.append({"block": block, **_share(mine)})
    return found


def _share(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Integers that were compared, and the share of them that differ."""
    known = [row for row in rows if row["changed"] == row["changed"]]
    count = sum(row["weights"] for row in known)
    moved = sum(row["weights"] * row["changed"] for row in known)
    return {"weights": count, "changed": moved / count if count else None}


def blocks(service: Service, *, store: str, set: str | None = None) -> dict[str, Any]:
    """What AdaRound left of the error of each block, beside simpler roundings.

    Returns
    -------
    ``set``, ``methods``, ``inputs``; ``rows``: ``{"block", "stream", "power", "iterations",
    "seconds", "error": by method, "by_inputs": by inputs, then method}``, errors mean squares of
    the block's output; ``losses``: ``{"block", "iteration", "loss", "rounding_loss"}``.

    Raises
    ------
    MissingError
        The set has no errors of blocks.
    """
    from taqstore.kinds.weight_sets import reconstruction_path

    held = service.store(store)
    name = _chosen(held, set)
    path = reconstruction_path(name)
    if path not in held:
        what = f"the weight set {name} has no errors of blocks"
        raise MissingError(problem(what, remedy="taqstore adaround keeps them"))
    data = held[path].load()
    address = service.address(store)
    code = ["import taqstore", "", opened(address), f"blocks = store[{path!r}]"]
    return {
        "set": name,
        "methods": data["rounding_method"].values.tolist(),
        "inputs": data["inputs"].values.tolist() if "method_error" in data else [],
        "rows": [
            row
            for block in data["block"].values.tolist()
            for row in _block_rows(data.sel(block=block), block)
        ],
        "losses": [_losses(data.sel(block=block), block) for block in data["block"].values],
        "cli": command_line("query", address, after=[path, "output_error"]),
        "python": "\n".join(code),
    }


def _block_rows(one: xr.Dataset, block: str) -> list[dict[str, Any]]:
    rows = []
    for stream in one["stream"].values.tolist():
        at = one.sel(stream=stream)
        if not float(at["output_power"]) > 0:  # the block does not put this stream out
            continue
        rows.append(
            {
                "block": block,
                "stream": stream,
                "power": float(at["output_power"]),
                "iterations": int(one["iterations"]),
                "seconds": float(one["seconds"]),
                "error": _by(at["output_error"], "rounding_method"),
                "by_inputs": {
                    str(kind): _by(at["method_error"].sel(inputs=kind), "rounding_method")
                    for kind in (at["inputs"].values if "method_error" in at else ())
                },
            }
        )
    return rows


def _by(array: xr.DataArray, dim: str) -> dict[str, float]:
    return dict(zip(array[dim].values.tolist(), array.values.tolist(), strict=True))


def _losses(one: xr.Dataset, block: Any) -> dict[str, Any]:
    known = one["loss"].notnull().values
    return {
        "block": str(block),
        "iteration": one["iteration"].values[known].tolist(),
        "loss": one["loss"].values[known].tolist(),
        "rounding_loss": one["rounding_loss"].values[known].tolist(),
    }
