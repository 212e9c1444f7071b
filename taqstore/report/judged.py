"""What trajectories say: variants beside the model as it is, the layers to blame, headroom."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.analysis.table import ANALYSES
from taqstore.errors import MissingError
from taqstore.kinds.sensitivity import sensitivities
from taqstore.query.analyze import Results
from taqstore.query.sites import Groups, paths_of
from taqstore.query.variants import MIN_COSINE, compared_variants
from taqstore.report.findings import Findings, Plan
from taqstore.report.page import IN_PART, NO, YES, Section, Table, Verdict, number
from taqstore.trajectory.bootstrap import bootstrap

KEY = "judged"
_TITLE = "Is the quantized model good enough, and which layers are to blame?"
_WORST = 12
_RULE = (
    f"A variant passes if the mean cosine of its latents with those of the model as it is stays at "
    f"{MIN_COSINE:g} or above at every step, and no seed falls below {MIN_COSINE:g} (bifurcates): "
    "the gate of `taqstore gate` with its defaults. Intervals are of 95 %, by a bootstrap over "
    "seeds."
)


@dataclass(frozen=True)
class _Part:
    """What one question adds to the section."""

    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


def gather_judged(store: Groups, plan: Plan) -> Findings:
    """What the store holds on trajectories, each asked once; and why the rest is not told."""
    statistics = {path: store[path] for path in paths_of(store, plan.source)}
    asked: dict[Hashable, Callable[[], Results]] = {
        "gate": lambda: compared_variants(store),
        "sensitivity": lambda: {"/".join(key): d for key, d in sensitivities(store).items()},
        "overflow": lambda: ANALYSES["overflow"].load()(statistics),
    }
    results: dict[Hashable, Results] = {}
    missing: dict[Hashable, str] = {}
    for name, ask in asked.items():
        try:
            results[name] = {key: data.compute() for key, data in ask().items()}
        except MissingError as error:
            missing[name] = str(error)
    return Findings(results, missing)


def judged(found: Findings) -> Section:
    """The section, without its pictures."""
    parts = [make(found.results.get(name, {})) for name, make in _PARTS.items()]
    passed, known = _passed(found.results.get("gate", {}))
    return Section(
        KEY,
        _TITLE,
        _summary(passed, known),
        _verdict(len(passed), len(known)),
        _RULE,
        tables=tuple(table for part in parts for table in part.tables),
        notes=tuple(note for part in parts for note in part.notes),
        command="taqstore gate STORE --variant NAME",
    )
