"""Measured effects as a map: what quantizing one linear, block, site or step did to the latent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taqstore.analysis.shared.option import Option
from taqstore.asked import word_of
from taqstore.errors import MissingError, problem
from taqstore.kinds.sensitivity import UNITS
from taqstore.names import SENSITIVITY, kind_of, site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.served.shown import command_line, opened, python_call
from taqstore.serve.views.asking import layer_particulars

if TYPE_CHECKING:
    import xarray as xr

FORMAT = Option("format", "Of a sensitivity, as rtn-w4 [default: the first there is].", "word")
UNIT = Option("unit", "What was quantized alone [default: the first there is].", str, choices=UNITS)


def formats_of(service: Service, store: str) -> list[dict[str, str]]:
    """``unit`` and ``format`` of every sensitivity that a store holds, units in their order."""
    paths = [path for path in service.store(store) if kind_of(path) == SENSITIVITY]
    found = [{"unit": site_of(split_group(p)[0]), "format": site_of(p)} for p in paths]
    return sorted(found, key=lambda one: (UNITS.index(one["unit"]), one["format"]))


def effects_map(
    service: Service, store: str, format: str | None, unit: str | None
) -> dict[str, Any]:
    """Latent errors of what was quantized alone, mean over images, as rows of the map.

    Raises
    ------
    MissingError
        The store holds no such sensitivity.
    """
    known = formats_of(service, store)
    some = [one for one in known if unit in (None, one["unit"])]
    if not some:
        remedy = "taqstore sensitivity STORE measures it"
        raise MissingError(problem("no sensitivity is stored", where=store, remedy=remedy))
    if format is not None:
        word_of(format, [one["format"] for one in some], "format")
        some = [one for one in some if one["format"] == format]
    chosen = some[0]
    path = "/".join(("sensitivity", chosen["unit"], chosen["format"]))
    errors = service.kept(store, ("effects", path), lambda: _mean(service, store, path))
    address = service.address(store)
    call = python_call("taqstore.query.reduce", [f"store[{path!r}]", repr("image=mean")])
    return {
        "asked": chosen,
        "formats": known,
        "source": path,
        **_rows(chosen["unit"], errors),
        "left_out": [],
        "cli": command_line(
            "query", address, after=(path, "latent_error", "--reduce", "image=mean")
        ),
        "python": "\n".join(
            ["import taqstore", "", opened(address), f"values = {call}['latent_error']"]
        ),
    }


def _mean(service: Service, store: str, path: str) -> xr.DataArray:
    from taqstore.query.reduction import reduce

    return reduce(service.store(store)[path][["latent_error"]], "image=mean")[
        "latent_error"
    ].compute()


def _rows(unit: str, errors: xr.DataArray) -> dict[str, Any]:
    targets = [str(target) for target in errors["target"].values]
    if unit == "step":
        values = errors.values
        row = {"site": "all linears", "layer": "all", "projection": "", "block": "",
               "number": None, "stream": "", "values": values}  # fmt: skip
        return {"steps": [int(target) for target in targets], "sigma": None, "rows": [row]}
    rows = [
        {**_place(unit, target), "values": [value]}
        for target, value in zip(targets, errors.values, strict=True)
    ]
    return {"steps": ["all"], "sigma": None, "rows": rows}


def _place(unit: str, target: str) -> dict[str, Any]:
    from taqstore.names import parse_layer

    if unit == "site":
        return {"site": target, "layer": "all", "projection": "",
                **layer_particulars("")}  # fmt: skip
    if unit == "block":
        return {"site": "all linears", "layer": target, "projection": "",
                **layer_particulars(target)}  # fmt: skip
    name = parse_layer(target)
    return {"site": name.site, "layer": name.layer, "projection": name.projection,
            **layer_particulars(name.layer)}  # fmt: skip
