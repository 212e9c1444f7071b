"""What was calibrated: the model, the images, the steps, the groups, and who wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from taqstore.kinds.nonfinite import at, listed
from taqstore.names import LATENTS, site_of
from taqstore.place.sizes import format_bytes
from taqstore.query.sites import Groups
from taqstore.report.findings import Plan
from taqstore.report.page import Number, Table, number
from taqstore.store.attributes import attribute_of
from taqstore.store.reader import Store
from taqstore.upkeep.info import describe_store, summary_lines
from taqstore.upkeep.kept import SET_COLUMNS, set_lines

_PROMPTS = 6
_GROUPS = 3
_TEXT = 160
_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Overview:
    """Facts about the run, some of its prompts, tables of groups and of provenance."""

    name: str
    digest: str
    facts: tuple[Number, ...]
    prompts: tuple[str, ...]
    prompt_count: int
    tables: tuple[Table, ...]


def overview(store: Store, groups: Groups, plan: Plan) -> Overview:
    """Collect what a store says about itself.

    Parameters
    ----------
    groups
        The groups of the source reported on.
    """
    described = describe_store(store)
    latents = store[LATENTS] if LATENTS in store else xr.Dataset()
    prompts = [str(text) for text in latents["prompt"].values] if "prompt" in latents else []
    facts = (
        *_run_facts(store, latents),
        *_statistics_facts(groups, plan),
        Number("Store", f"format {described['format']}, {format_bytes(described['stored_bytes'])}"),
    )
    return Overview(
        store.location.name,
        store.digest,
        facts,
        tuple(_short(text) for text in prompts[:_PROMPTS]),
        len(prompts),
        (
            *_nonfinite_tables(described["nonfinite"]),
            _group_table(described),
            *_set_tables(described),
            *_provenance_tables(described["provenance"]),
        ),
    )


def _run_facts(store: Store, latents: xr.Dataset) -> Iterator[Number]:
    run = _first(store, "run")
    manifest = attribute_of(latents, "source_manifest", {})
    yield Number("Model", _short(str(run.get("model", manifest.get("model_version", _UNKNOWN)))))
    if "weights" in run:
        yield Number("Weights", _short(str(run["weights"]))[:16], "first digits of their SHA-256")
    if "dtype" in run:
        yield Number("Computed in", _short(str(run["dtype"])))
    if "image" not in latents.dims:
        return
    seeds = _ends(latents, "seed")
    yield Number("Images", str(latents.sizes["image"]), f"seeds {seeds}" if seeds else "")
    height, width = latents.sizes["height"], latents.sizes["width"]
    yield Number("Latents", f"{height} × {width} × {latents.sizes['latent_channel']}")
    if guidance := _ends(latents, "cfg_weight"):
        yield Number("Guidance weight", guidance)
    yield Number("Denoising steps", str(int(_model_steps(latents))))


def _first(store: Store, attribute: str) -> Mapping[str, Any]:
    found = (attribute_of(store[path], attribute) for path in store)
    return next((value for value in found if isinstance(value, Mapping)), {})


def _model_steps(latents: xr.Dataset) -> int:
    """Steps at which the model was called: the final latent is no model input."""
    final = latents["is_final"].values if "is_final" in latents else np.zeros(0, bool)
    return int(latents.sizes["step"] - final.sum())


def _ends(data: xr.Dataset, name: str, digits: int = 10) -> str:
    if name not in data or not data[name].size:
        return ""
    low, high = (number(float(end), digits=digits) for end in (data[name].min(), data[name].max()))
    return low if low == high else f"{low} to {high}"


def _statistics_facts(groups: Groups, plan: Plan) -> Iterator[Number]:
    sites = {site_of(path): data for path, data in groups.items()}
    first = next(iter(sites.values()))
    kind = "observed, batch by batch" if plan.observed else "arrived already reduced"
    yield Number("Statistics", plan.source, kind)
    layers = sum(data.sizes["layer"] * data.sizes.get("projection", 1) for data in sites.values())
    yield Number("Linear inputs", str(layers), ", ".join(sites))
    sigma = _ends(first, "sigma", digits=3)
    steps = max(data.sizes["step"] for data in sites.values())
    yield Number("Steps with statistics", str(steps), f"σ {sigma}" if sigma else "")
    if "batch" in first.dims:
        yield Number("Batches", str(first.sizes["batch"]))


def _nonfinite_tables(found: list[dict[str, Any]]) -> tuple[Table, ...]:
    if not found:
        return ()
    rows = tuple(
        (
            one["group"],
            at(**one["first"]),
            *(listed(one[key]) for key in ("layers", "steps", "images")),
            *(str(one[key]) for key in ("nan", "plus_inf", "minus_inf")),
        )
        for one in found
    )
    header = ("group", "first in", "layers", "steps", "images", "NaN", "+Inf", "−Inf")
    return (Table("Values that are no numbers, the first of them in front", header, rows, 5),)


def _group_table(described: Mapping[str, Any]) -> Table:
    header = ("group", "dimensions", "variables", "stored", "ratio", "written")
    return Table("Groups of the store", header, tuple(summary_lines(described)), labels=2)


def _set_tables(described: Mapping[str, Any]) -> tuple[Table, ...]:
    rows = tuple(set_lines(described))
    return (Table("Weight sets", SET_COLUMNS, rows, labels=4),) if rows else ()


def _provenance_tables(records: list[dict[str, Any]]) -> tuple[Table, ...]:
    if not records:
        return ()
    rows = tuple(
        (
            str(record["time"]).replace("T", " ").replace("+00:00", " UTC"),
            str(record["command"]),
            _groups(record["groups"]),
            _parameters(record["parameters"]),
        )
        for record in records
    )
    return (Table("Provenance", ("time", "command", "groups", "parameters"), rows, labels=4),)


def _groups(names: list[str]) -> str:
    """Names of groups; of many the first ones and how many more."""
    more = len(names) - _GROUPS
    return ", ".join(names[:_GROUPS]) + (f" and {more} more" if more > 0 else "")


def _parameters(parameters: Mapping[str, Any]) -> str:
    """Parameters in one line, long values cut."""
    texts = (
        f"{key} {_short(value if isinstance(value, str) else json.dumps(value), 40)}"
        for key, value in parameters.items()
        if value not in ("", None)
    )
    return ", ".join(texts)


def _short(text: str, width: int = _TEXT) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
