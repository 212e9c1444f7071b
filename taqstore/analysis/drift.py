"""Whether a second run leaves the range that a first one was calibrated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from taqstore.analysis.extra import Chooser, Pair, dealt, extra_error, over_steps
from taqstore.analysis.ranges.clip import Clip
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.steps import Cuts, cuts_text
from taqstore.analysis.reruns.deals import Standing, deal, hands, standing
from taqstore.analysis.reruns.held import Held
from taqstore.analysis.reruns.matching import Matched
from taqstore.analysis.scales import checked_scheme
from taqstore.analysis.shared.inputs import finish, observed_histogram
from taqstore.analysis.table import of_row
from taqstore.errors import LayoutError, MissingError, problem
from taqstore.kinds.statistics_sources import STATISTICS
from taqstore.names import site_of, split_group

_NAME = "drift"
Groups = Mapping[str, xr.Dataset]
Floats = npt.NDArray[np.float64]

FLOOR = 1.0
"""dB of extra error that nobody cares about: a sixth of a bit, less than clip rules differ by."""
DEALS = 400
"""Deals besides the hands as they are: a false alarm has a chance of 1 in 401."""
# A first look, which most runs without drift do not pass; it spares them the other deals.
_GLANCE = 30
# With fewer other deals, to stand out in all of them is not rare enough by itself.
_FEW = 100
# Deals look at so many steps at most, evenly chosen, and at so many images of a run.
_STEPS, _IMAGES = 7, 64


@of_row(_NAME)
def drift(
    first: Groups,
    second: Groups,
    *,
    bits: int = 8,
    symmetric: bool = True,
    clip: Rule = "absmax",
    percentile: float | None = None,
    momentum: float | None = None,
    cuts: Cuts = None,
    narrow_range: bool = False,
    floor: float = FLOOR,
    deals: int = DEALS,
    seed: int = 0,
    per: str = "linear",
) -> dict[str, xr.Dataset]:
    """What quantizers of the first run cost the second one, and whether chance explains it.

    The quantizers of both are chosen by the same rule. Extra error is the SQNR of the second run
    under its own quantizers minus that under the first run's; of a linear as a whole, from means
    over steps of noise over signal. Steps are matched by the nearest sigma.

    The verdict: images of both runs, as many of either where that leaves enough deals, are dealt
    anew into two hands of the same sizes, `deals` times (see `reruns.deals`). A linear drifted if
    its extra error is at least the floor, among all images and among those dealt, and stands out
    further than that of any linear in any other deal. Where images of both are as if drawn from one
    heap, they are so called drift with a chance of at most 1 in ``deals + 1``. With fewer than 100
    deals the mean over linears must reach the floor and be the most of all deals too. Without
    images to deal (pooled statistics, one image in each, bins that do not add) the floor for this
    mean alone decides, and bounds no chance.

    Other prompts are no re-run: what they do to ranges is drift like any other.

    Parameters
    ----------
    first, second
        Stores, or groups of one source of each: the first is the one that is calibrated.
    bits, symmetric, clip, percentile, momentum, cuts, narrow_range
        As in `error`; cuts are steps of the first run.
    floor
        Least extra error in dB that counts.
    deals, seed
        How often images are dealt anew, and the seed of it.
    per
        `linear`; or `step`, for a table of linears and steps too.

    Returns
    -------
    Datasets by name
        `verdict`; `linears` (linear), the worst first; with `per` `step` also `steps` (linear,
        step). The verdict has the attribute `failure`: what drifted, or nothing.

    Raises
    ------
    MissingError
        No site or layer in common, or statistics that lack a variable.
    """
    scheme = checked_scheme(bits, symmetric, narrow_range)
    how = Chooser(scheme, Clip.of(clip, percentile=percentile, momentum=momentum), cuts)
    pairs = _pairs(first, second)
    steps = xr.concat([pair.priced(how) for pair in pairs], "linear", join="outer")
    linears = _over_steps(steps)
    chance = _chance(pairs, how, floor, deals, seed)
    judged = _judged(linears, chance, floor)
    order = np.argsort(-judged["extra_error"].values, kind="stable")
    found = {"verdict": _verdict(judged, chance, floor), "linears": judged.isel(linear=order)}
    if per == "step":
        found["steps"] = _with_gap(steps.isel(linear=order), pairs[0].matched)
    failure = found["verdict"].attrs.pop("failure")
    source, other = pairs[0].first, pairs[0].second
    stamp = {"bits": bits, "symmetric": symmetric, **how.rule.stamp, "cuts": cuts_text(cuts),
             "narrow_range": narrow_range, "floor": floor, "deals": deals, "seed": seed,
             "second_store_digest": other.attrs.get("store_digest")}  # fmt: skip
    stamped = {name: finish(result, source, _NAME, **stamp) for name, result in found.items()}
    stamped["verdict"].attrs["failure"] = failure
    return stamped


def _pairs(first: Groups, second: Groups) -> list[Pair]:
    """Sites that both have, at the layers that both have."""
    sides = []
    for groups in (first, second):
        paths = (path for path in groups if split_group(path)[0] in STATISTICS)
        sides.append({site_of(path): path for path in paths})
    pairs = []
    for site in sides[0]:
        if site not in sides[1]:
            continue
        a, b = first[sides[0][site]], second[sides[1][site]]
        layers = [layer for layer in a["layer"].values if layer in b["layer"].values]
        if layers:
            a, b = a.sel(layer=layers), b.sel(layer=layers)
            pairs.append(Pair(site, a, b, Matched.of(a, b)))
    if not pairs:
        found = " and ".join(", ".join(side) or "no sites" for side in sides)
        raise MissingError(problem("the two stores have no linear in common", found=found))
    return pairs


def _over_steps(steps: xr.Dataset) -> xr.Dataset:
    found = {name: ("linear", over_steps(values.values)) for name, values in steps.items()}
    extra = extra_error(steps["own_sqnr"].values, steps["drifted_sqnr"].values)
    return xr.Dataset({**found, "extra_error": ("linear", extra)}, {"linear": steps["linear"]})


@dataclass(frozen=True)
class _Chance:
    """What deals give: how linears stand, how many other deals there were, of how many images."""

    standing: Standing | None
    deals: int
    images: tuple[int, int]
    why: str = ""


def _chance(pairs: list[Pair], how: Chooser, floor: float, count: int, seed: int) -> _Chance:
    stored = [min(_IMAGES, _batches(pairs, side)) for side in ("first", "second")]
    if min(stored) == 0:
        return _Chance(None, 0, (0, 0), "statistics are pooled over images")
    images = hands(stored[0], stored[1], count=count)
    others = comb(sum(images), images[1]) - 1
    if others < _GLANCE:
        return _Chance(None, 0, images, f"{sum(images)} images can be dealt {others} other ways")
    orders = deal(*images, count, seed=seed)
    every = min(len(pair.matched.second) for pair in pairs)
    kept = np.unique(np.linspace(0, every - 1, min(_STEPS, every)).round().astype(int)).tolist()
    try:
        held = Held.joined([pair.hold(kept, images) for pair in pairs])
    except LayoutError:
        return _Chance(None, 0, images, "the histograms have bins that do not add")

    names = [name for batches in held for name in batches.layer]
    place = [names.index(name) for pair in pairs for name in pair.linears(pair.first["layer"])]

    def values(some: npt.NDArray[np.int64]) -> Floats:
        cuts = pairs[0].matched.cuts(how.cuts, kept)
        found = np.concatenate([dealt(h, how, cuts, some, images[0]) for h in held], axis=1)
        return found[:, place]

    glance = values(orders[: _GLANCE + 1])
    stands = standing(glance, floor=floor)
    if not stands.beyond.any() or len(orders) == len(glance):
        return _Chance(stands, len(glance) - 1, images)
    whole = np.concatenate([glance, values(orders[len(glance) :])])
    return _Chance(standing(whole, floor=floor), len(whole) - 1, images)


def _batches(pairs: list[Pair], side: str) -> int:
    """Images of a run that can be told apart; 0 where some site has none."""
    datasets = [getattr(pair, side) for pair in pairs]
    able = all("batch" in d.dims and observed_histogram(d) is not None for d in datasets)
    return min(int(d.sizes["batch"]) for d in datasets) if able else 0


def _judged(linears: xr.Dataset, chance: _Chance, floor: float) -> xr.Dataset:
    extra = linears["extra_error"].values
    if chance.standing is None:
        usual = most = np.full(len(extra), np.nan)
        beyond = np.full(len(extra), bool(_mean(extra) >= floor))
    else:
        usual, most, beyond = chance.standing.usual, chance.standing.most, chance.standing.beyond
        if chance.deals < _FEW and not (chance.standing.leads and _mean(extra) >= floor):
            beyond = np.zeros(len(extra), bool)
    return linears.assign(
        usual_extra_error=("linear", usual),
        most_extra_error=("linear", most),
        recalibrate=("linear", beyond & (extra >= floor)),
    )


def _mean(extra: Floats) -> float:
    """Mean over linears; one that is all noise counts as 100 dB."""
    return float(np.clip(np.nan_to_num(extra, posinf=100), -100, 100).mean())


def _verdict(judged: xr.Dataset, chance: _Chance, floor: float) -> xr.Dataset:
    extra, flagged = judged["extra_error"].values, judged["recalibrate"].values
    count = int(flagged.sum())
    failure = ""
    if count:
        worst = int(np.argmax(np.where(flagged, extra, -np.inf)))
        name, most = str(judged["linear"].values[worst]), judged["most_extra_error"].values[worst]
        by = f"{most:.2g} dB at most in {chance.deals} other deals of the images"
        if chance.standing is None:
            by = f"by the floor of {floor:g} dB alone, as {chance.why}"
        failure = (
            f"drift: {count} of {len(extra)} linears need quantizers of their own, {name} loses"
            f" {extra[worst]:.3g} dB ({by})"
        )
    scalars: dict[str, Any] = {
        "drifted": bool(count),
        "linears": len(extra),
        "linears_to_recalibrate": count,
        "mean_extra_error": _mean(extra),
        "worst_extra_error": float(np.max(extra)),
        "deals": chance.deals,
        "first_images": chance.images[0],
        "second_images": chance.images[1],
    }
    basis = "deals" if chance.standing is not None else f"floor alone: {chance.why}"
    result = xr.Dataset({name: ((), value) for name, value in scalars.items()})
    return result.assign(judged_by=((), basis)).assign_attrs(failure=failure)


def _with_gap(steps: xr.Dataset, matched: Matched) -> xr.Dataset:
    extra = steps["own_sqnr"] - steps["drifted_sqnr"]
    return steps.assign(extra_error=extra).assign_coords(
        first_step=("step", matched.first), sigma_gap=("step", matched.gap)
    )
