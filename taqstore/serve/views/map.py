"""One number of every step and linear: the overview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taqstore.serve.served.service import Service

if TYPE_CHECKING:
    import xarray as xr


def quantity_map(service: Service, *, store: str, quantity: str, **asked: Any) -> dict[str, Any]:
    """A quantity of every (layer, step) of a store, by site.

    Returns
    -------
    ``{"quantity", "unit", "steps", "sigma", "rows": [{"site", "layer", "values": [...]}],
    "cli", "python"}``; values are float or None, one a step.
    """
    from taqstore.query.analyze import analyze, load

    results = load(analyze("scales", service.store(store), **asked))
    rows = [row for path, result in results.items() for row in _rows(path, result)]
    first: xr.Dataset = next(iter(results.values()))
    return {"quantity": quantity, "unit": "value", "steps": first.step.values.tolist(),
            "sigma": first.sigma.values.tolist(), "rows": rows}  # fmt: skip


def _rows(path: str, result: xr.Dataset) -> list[dict[str, Any]]:
    site = path.partition("/")[2]
    values = result["alpha"].transpose("layer", "step").values.tolist()
    names = result.layer.values.tolist()
    return [{"site": site, "layer": n, "values": v} for n, v in zip(names, values, strict=True)]
