"""What the report needs from the analyses, worked out for all layers together in one pass."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from taqstore.analysis.bits import choice_errors, joint_bits
from taqstore.analysis.error import errors
from taqstore.analysis.groups import curves_of
from taqstore.analysis.ranges.rules import compared
from taqstore.errors import MissingError
from taqstore.names import ACTIVATIONS
from taqstore.query.analyze import Results, analyze, load, site_tables
from taqstore.query.sites import Groups, answers, choose_groups
from taqstore.run.dealing import beside
from taqstore.statistics.moving_average import SHIFT_MOMENTUM
from taqstore.store.attributes import attribute_of

CUTS = (None, "static")
"""A bound for every step, and one for all."""
GROUPS_TOLERANCE = 0.05
"""Groups of steps may cost this share more than a range for every step."""

TOP_CHANNELS = 10
"""So many channels are shown that are widest for their layer."""

LAYER_GROUPS = "groups of single layers"
STEP_BITS = "bits of every step"
"""Names of results that only pictures show; the others are called like their analyses."""

CURVES = ("optimal_error", "cluster_error", "sigma_error", "group", "group_count")
"""What is kept of groups of steps."""


_QUESTIONS_AT_ONCE = 2

_Answer: TypeAlias = tuple[dict[Hashable, Results], dict[Hashable, MissingError]]
"""Results, and what is missing for those that could not be had."""

_Request: TypeAlias = tuple[Hashable, str, Sequence[str], dict[str, Any]]
"""Name of a result, its analysis, the variables to keep, the options."""


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Parameters
    ----------
    source
        Group prefix that all numbers come from.
    bits
        Widths to price and to choose from, widest first.
    budget
        Average bits of the recommended allocation.
    groups
        Number of time groups, or None for the fewest within `GROUPS_TOLERANCE`.
    """

    source: str
    bits: tuple[int, ...]
    budget: float
    groups: int | None

    @property
    def group_bits(self) -> int:
        """Width that time groups are cut for: the one nearest the budget."""
        return min(self.bits, key=lambda width: abs(width - self.budget))

    @property
    def observed(self) -> bool:
        """Whether the numbers come from observations, not from what arrived reduced."""
        return self.source == ACTIVATIONS


@dataclass(frozen=True)
class Findings:
    """Loaded results by name, and for those that could not be had the reason."""

    results: Mapping[Hashable, Results]
    missing: Mapping[Hashable, str]
    tables: dict[Hashable, list[pd.DataFrame]] = field(default_factory=dict, repr=False)

    def table(self, name: Hashable, *dims: str) -> pd.DataFrame:
        """Rows over the dimensions given, one table for all sites; empty if there are none."""
        if name not in self.tables:
            self.tables[name] = site_tables(dict(self.results.get(name, {})))
        for table in self.tables[name]:
            found = set(table.attrs["dims"]) - {"site"}
            if found == set(dims):
                return table.assign(linear=_linears(table)) if "layer" in table else table
        return pd.DataFrame()


def _linears(table: pd.DataFrame) -> list[str]:
    """Name of the tensor of every row: `mm0.img.mlp.fc2`, `mm0.txt.attn.q_proj`."""
    projections = table["projection"] if "projection" in table else [""] * len(table)
    return [
        f"{layer}.attn.{projection}" if projection else f"{layer}.{site}"
        for layer, site, projection in zip(table["layer"], table["site"], projections, strict=True)
    ]


def of_steps(groups: Groups, plan: Plan) -> Findings:
    """Groups of steps of all sites, which are drawn while the rest is asked; as of `gather`."""
    return _more(Findings({}, {}), [partial(_grouped, groups, plan)])


def gather(groups: Groups, plan: Plan, known: Findings | None = None) -> Findings:
    """Run the analyses of the report over all sites and load the results, without `of_channels`.

    Parameters
    ----------
    groups
        Those of `reading.groups_of`.
    known
        What `of_steps` told, where it was asked before.

    Raises
    ------
    TaqError
        Options of the plan that make no sense.
    """
    asked: list[Callable[[], _Answer]] = [
        partial(_allocated, groups, plan),
        partial(_priced, groups, plan),
        *_questions(groups, plan, _requests()),
    ]
    return _more(known or of_steps(groups, plan), asked)


def of_channels(known: Findings, groups: Groups, plan: Plan) -> Findings:
    """What is known, and what extrema of channels tell: most of what there is to read."""
    found = _more(known, [*_questions(groups, plan, _channel_requests(groups))])
    widest = {path: _widest(data) for path, data in found.results.get("outliers", {}).items()}
    return replace(found, results={**found.results, "outliers": widest}) if widest else found


def _more(known: Findings, asked: Sequence[Callable[[], _Answer]]) -> Findings:
    """What is known, and the answers to more questions."""
    results, missing = _told(asked)
    found = {**known.results, **_loaded(results)}
    tables = {name: made for name, made in known.tables.items() if name in known.results}
    return Findings(found, {**known.missing, **missing}, tables)


def _told(
    asked: Sequence[Callable[[], _Answer]],
) -> tuple[dict[Hashable, Results], dict[Hashable, str]]:
    """Answers to questions, and why others have none.

    What is held is answered at once, a few at a time: NumPy lets go of the interpreter where it
    works.
    """
    results: dict[Hashable, Results] = {}
    missing: dict[Hashable, str] = {}
    with beside(_QUESTIONS_AT_ONCE) as submit:
        for one in [submit(ask) for ask in asked]:
            found, lacking = one.result()
            results |= found
            missing |= {name: str(error) for name, error in lacking.items()}
    return results, missing


def _questions(
    groups: Groups, plan: Plan, requests: Iterator[_Request]
) -> Iterator[Callable[[], _Answer]]:
    for name, analysis, kept, options in requests:
        yield partial(_asked, groups, plan.source, name, analysis, kept, options)


def _asked(
    groups: Groups,
    source: str,
    name: Hashable,
    analysis: str,
    kept: Sequence[str],
    options: Mapping[str, Any],
) -> _Answer:
    try:
        found = analyze(analysis, groups, source=source, **options)
    except MissingError as error:
        return {}, {name: error}
    return {name: {path: _only(data, kept) for path, data in found.items()}}, {}


def _allocated(groups: Groups, plan: Plan) -> _Answer:
    """Bits of layers, and of every step of them: widths are priced once for both."""
    how: Any = {"average": plan.budget, "choices": plan.bits}
    try:
        steps = {
            path: choice_errors(groups[path], **how, per="step")
            for path in choose_groups(groups, plan.source)
        }
    except MissingError as error:
        return {}, dict.fromkeys(("bits", STEP_BITS), error)
    layers = {path: cost.mean("step", keep_attrs=True) for path, cost in steps.items()}
    found = {
        "bits": (joint_bits(layers, **how), ("bits", "allocated_error", "choice_error")),
        STEP_BITS: (joint_bits(steps, **how, per="step"), ("bits", "choice_error")),
    }
    return {
        name: {path: _only(data, kept) for path, data in results.items()}
        for name, (results, kept) in found.items()
    }, {}


def _grouped(groups: Groups, plan: Plan) -> _Answer:
    """Groups of steps for all layers of a site and for each: runs of steps are priced once."""
    number = (None, GROUPS_TOLERANCE) if plan.groups is None else (plan.groups, None)
    asked = ((True, *number), (False, None, GROUPS_TOLERANCE))

    def ask(path: str) -> list[xr.Dataset]:
        return curves_of(groups[path], bits=plan.group_bits, asked=asked)

    try:
        told = answers(ask, choose_groups(groups, plan.source))
    except MissingError as error:
        return {}, dict.fromkeys(("groups", LAYER_GROUPS), error)
    return {
        name: {path: _only(data[place], CURVES) for path, data in told.items()}
        for place, name in enumerate(("groups", LAYER_GROUPS))
    }, {}


def _requests() -> Iterator[_Request]:
    yield "ranges", "scales", ("lower", "upper"), {"clip": "minmax", "symmetric": False}
    yield "temporal", "temporal", ("variability_ratio", "correlation"), {}


def _channel_requests(groups: Groups) -> Iterator[_Request]:
    yield "shifts", "shifts", ("alpha", "shifted_alpha"), {"momentum": _momentum(groups)}
    shares = ("step_range", "negative_fraction", "negative_fraction_all", "counted")
    yield "diagnostics", "diagnostics", shares, {}
    tails = ("range", "is_outlier", "multiplier", "median_range", "tail_ratio", "spike_count")
    yield "outliers", "outliers", (*tails, "step_jaccard", "batch_jaccard"), {}


def _priced(groups: Groups, plan: Plan) -> _Answer:
    """Errors of all configurations by ``("error", bits, rule, cuts)``, all of a site in one pass.

    The best clip bound of every step is left out: `bits` prices it already.
    """
    every = product(plan.bits, compared(), CUTS)
    asked: dict[Hashable, dict[str, Any]] = {
        ("error", bits, rule, cuts): {"bits": bits, "clip": rule, "cuts": cuts}
        for bits, rule, cuts in every
        if (rule, cuts) != ("mse", None)
    }
    found: dict[Hashable, dict[str, xr.Dataset]] = {}
    missing: dict[Hashable, MissingError] = {}
    for path in choose_groups(groups, plan.source):
        priced, lacking = errors(groups[path], asked)
        for name, data in priced.items():
            found.setdefault(name, {})[path] = data
        missing = lacking | missing
    return {name: found[name] for name in asked if name in found}, {
        name: error for name, error in missing.items() if name not in found
    }


def _momentum(groups: Groups) -> float:
    """Momentum that stored shifts were made with; where there are none any will do."""
    used = [
        attribute_of(data, "source_document", {}).get("shift_momentum") for data in groups.values()
    ]
    return float(next((momentum for momentum in used if momentum is not None), SHIFT_MOMENTUM))


def _only(data: xr.Dataset, kept: Sequence[str]) -> xr.Dataset:
    return data[[name for name in kept if name in data]]


def _widest(data: xr.Dataset) -> xr.Dataset:
    """Of channels those alone that `TOP_CHANNELS` of the group may be: tables of all take long."""
    if "range" not in data:
        return data
    median = data["median_range"]
    times = (data["range"] / median.where(median > 0)).transpose(..., "channel").values
    times = np.where(np.isnan(times), -np.inf, times)
    least = np.sort(times, axis=None)[-TOP_CHANNELS:].min(initial=np.inf)
    some = np.flatnonzero((times >= least).reshape(-1, times.shape[-1]).any(axis=0))
    return data.assign_coords(channel=data["channel"]).isel(channel=some)


def _loaded(results: Mapping[Hashable, Results]) -> dict[Hashable, Results]:
    """All results computed together, so that what several of them read is read once."""
    flat = {(name, path): data for name, found in results.items() for path, data in found.items()}
    values = load(flat)
    return {name: {path: values[name, path] for path in found} for name, found in results.items()}
