"""What a store has for the explorer: from it the page knows which views and menus to offer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from taqstore.names import site_of, split_group
from taqstore.serve.served.service import Service
from taqstore.serve.views.asking import layer_particulars, steps_of
from taqstore.serve.views.effects import formats_of
from taqstore.serve.views.layer import batches_of
from taqstore.serve.views.map import offered_by

if TYPE_CHECKING:
    import xarray as xr

    from taqstore.store.reader import Store


def summary(service: Service, *, store: str) -> dict[str, Any]:
    """Sources, sites, layers, steps and images of a store, and what can be asked of them.

    Returns
    -------
    ``store``, ``address``; ``groups``: ``path`` and ``kind`` of every group, and of those of
    statistics ``source`` and ``site``; ``sources``, and ``source``, the preferred one; of that
    ``sites``, each with ``layers``: ``layer``, ``block``, ``number``, ``stream``; ``steps``,
    ``sigma``, ``projections``, ``batches`` (``batch``, ``images``), and ``slots``, how many images
    a batch holds; ``quantities``; ``rules``, each with ``can``, whether the source has what it
    needs; ``formats``: ``unit`` and ``format`` of sensitivities; ``has``: which kinds of groups
    there are; ``figures``: words of `plot` that can be drawn. ``cli``, ``python``.
    """
    return service.kept(store, ("summary",), lambda: _summary(service, store))


def _summary(service: Service, store: str) -> dict[str, Any]:
    from taqstore.names import kind_of
    from taqstore.serve.served.shown import command_line, opened

    groups, address = service.store(store), service.address(store)
    offered = offered_by(service, store)
    source = next(iter(offered["sources"]), "")
    paths = [path for path in groups if source and split_group(path)[0] == source]
    first = groups[paths[0]] if paths else None
    return {
        "store": store,
        "address": address,
        "groups": [{"path": path, "kind": kind_of(path), **_sited(path)} for path in groups],
        "sources": offered["sources"],
        "source": source,
        "sites": [{"site": site_of(path), "layers": _layers(groups[path])} for path in paths],
        **_axes(first),
        "quantities": offered["quantities"],
        "rules": [{**rule, "can": _can(rule, first)} for rule in offered["rules"]],
        "formats": formats_of(service, store),
        "has": list(dict.fromkeys(kind_of(path) for path in groups)),
        "figures": _figures(groups),
        "cli": command_line("info", address),
        "python": "\n".join(["import taqstore", "", opened(address), "store"]),
    }


def _sited(path: str) -> dict[str, str]:
    from taqstore.kinds.statistics_sources import STATISTICS

    source, site = split_group(path)
    return {"source": source, "site": site} if source in STATISTICS else {}


def _layers(dataset: xr.Dataset) -> list[dict[str, Any]]:
    names = [str(name) for name in dataset["layer"].values]
    return [{"layer": name, **layer_particulars(name)} for name in names]


def _axes(dataset: xr.Dataset | None) -> dict[str, Any]:
    if dataset is None:
        return {"steps": [], "sigma": None, "projections": [], "batches": [], "slots": 0}
    known = "projection" in dataset.coords
    return {
        **steps_of(dataset),
        "projections": dataset["projection"].values.tolist() if known else [],
        "batches": batches_of(dataset),
        "slots": dataset.sizes.get("slot", 0),
    }


def _can(rule: dict[str, Any], dataset: xr.Dataset | None) -> bool:
    """Whether the source holds what a rule needs; what it makes of it may still be unknown."""
    if dataset is None:
        return False
    there = set(map(str, dataset.data_vars))
    apart = rule["merges"] or "batch" in dataset.dims or "avg_min" in there
    if rule["needs"] == "histogram":
        return bool(apart and there & {"histogram", "hist_counts", "hist_p999"})
    return bool(apart and there & {"min", "avg_min", "tensor_min", "tensor_absmax", "alpha"})


def _figures(groups: Store) -> list[str]:
    from taqstore.names import kind_of
    from taqstore.plot.figures import FIGURES

    kinds = {kind_of(path) for path in groups}
    have = [{str(name) for name in groups[path].variables} for path in groups
            if "layer" in groups[path].dims]  # fmt: skip
    return [
        word
        for word, row in FIGURES.items()
        if "other" not in row.needs
        and (
            kinds >= set(row.groups) and bool(row.groups)
            if row.made == "store"
            else any(set(names) <= one for names in row.requires for one in have)
        )
    ]
