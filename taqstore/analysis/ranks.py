"""Which static scores rank targets as their measured sensitivities do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from taqstore.analysis.shared.inputs import finish
from taqstore.analysis.static_scores import (
    BASELINES,
    Groups,
    Scores,
    input_scores,
    weight_scores,
)
from taqstore.analysis.table import of_row
from taqstore.asked import meant
from taqstore.errors import MissingError, MisuseError, problem
from taqstore.kinds.sensitivity import quantizes_inputs, scores, sensitivities
from taqstore.names import parse_layer, site_rank
from taqstore.statistics.bins import Floats
from taqstore.statistics.rank_correlation import rank_correlation, spearman

NAME = "ranks"
EFFECTS = ("latent_error", "worst_error")
"""Effects of a target that scores are compared with, each the mean over images."""

_LEAST = 3


@of_row(NAME)
def ranks(
    groups: Groups,
    *,
    unit: str | None = None,
    formats: Sequence[str] = (),
    trust: float = 0.8,
    draws: int = 2000,
    seed: int = 0,
    by_site: bool = False,
    values: bool = False,
) -> dict[str, xr.Dataset]:
    """Spearman's rank correlation of every static score with what was measured.

    The larger a score, the worse it says a target is: SQNR counts with the other sign. A score is
    trusted on this model where rho is at least `trust`; a baseline (number of weights, or of
    channels, or the noise level of a step) takes no statistics at all.

    Parameters
    ----------
    groups
        A store.
    unit, formats
        Of the sensitivities; None and none: all that are there.
    trust
        Least rho of a trusted score.
    draws, seed
        Of the bootstrap over targets.
    by_site
        Rank the linears of each site among themselves, too.
    values
        Give the values that are ranked too.

    Returns
    -------
    Dataset for each unit and format, `linear/mlx-w4-g64`; of linears at one site
    `linear/mlx-w4-g64/mlp.fc1`
        (effect, score): `rho`; `rho_lower`, `rho_upper`, the middle 95 % of so many draws of
        targets; `ranked`, the number of targets that have the score; `trusted`; `baseline`.
        Scores are in the order of their rho, those that fewer than 3 targets have are left out.
        (effect): `reliability`, the same between the effects on two halves of the images: a score
        can hardly do better. With `values`, (effect, target): `effect_value`; (score, target):
        `score_value`.

    Raises
    ------
    MissingError
        There are no sensitivities, or not these.
    MisuseError
        There is no such unit.
    """
    found = sensitivities(groups, unit)
    absent = [name for name in formats if name not in {format for _, format in found}]
    if not found or absent:
        what = f"no sensitivities in {absent[0]}" if absent else "no sensitivities in the store"
        there = dict.fromkeys(format for _, format in found)
        near = f"{meant(absent[0], there)}; " if found else ""
        raise MissingError(problem(what, remedy=f"{near}taqstore sensitivity measures them"))
    if draws < 1:
        raise MisuseError(problem("draws must be at least 1", found=str(draws)))
    kept = scores(groups, unit)
    results = {}
    for (of, format), dataset in found.items():
        if formats and format not in formats:
            continue
        if quantizes_inputs(format):
            static = input_scores(groups, of, format, dataset)
        else:
            static = weight_scores(kept.get((of, format)), dataset)
        for suffix, places in _parts(dataset, by_site=by_site and of == "linear").items():
            result = _ranked(
                dataset.isel(target=places),
                {name: score[places] for name, score in static.items()},
                trust=trust,
                draws=draws,
                seed=seed,
            )
            results[f"{of}/{format}{suffix}"] = finish(
                result if values else result.drop_dims("target"),
                dataset,
                NAME,
                trust=trust,
                draws=draws,
                seed=seed,
            )
    return results


def _parts(dataset: xr.Dataset, *, by_site: bool) -> dict[str, list[int]]:
    """Places of targets that are ranked among themselves, by what their result is called besides.

    All of them, then those of each site with 3 at least.
    """
    found = {"": list(range(dataset.sizes["target"]))}
    sites: dict[str, list[int]] = {}
    for place, name in enumerate(dataset["target"].values if by_site else ()):
        sites.setdefault(parse_layer(str(name)).site, []).append(place)
    ordered = sorted(sites, key=site_rank)
    return found | {f"/{site}": sites[site] for site in ordered if len(sites[site]) >= _LEAST}


def _ranked(
    dataset: xr.Dataset, static: Scores, *, trust: float, draws: int, seed: int
) -> xr.Dataset:
    each = np.stack([dataset[name].transpose("image", "target").values for name in EFFECTS])
    effects = each.mean(axis=1)
    known = np.isfinite(effects).all(axis=0)
    static = {n: v for n, v in static.items() if (known & ~np.isnan(v)).sum() >= _LEAST}
    shape = len(EFFECTS), len(static)
    rho, lower, upper = (np.full(shape, np.nan) for _ in range(3))
    ranked = np.zeros(shape, np.int64)
    for row, effect in enumerate(effects):
        for column, score in enumerate(static.values()):
            both = known & ~np.isnan(score)
            one = rank_correlation(score[both], effect[both], draws=draws, seed=seed)
            rho[row, column], lower[row, column], upper[row, column] = one
            ranked[row, column] = both.sum()
    of, names = ("effect", "score"), np.array(list(static), dtype=str)
    values: Floats = np.stack([*static.values()]) if static else np.zeros((0, len(known)))
    baseline = np.broadcast_to(np.isin(names, BASELINES), shape)
    found = xr.Dataset(
        {
            "rho": (of, rho),
            "rho_lower": (of, lower),
            "rho_upper": (of, upper),
            "ranked": (of, ranked),
            "trusted": (of, rho >= trust),
            "baseline": (of, baseline),
            "reliability": ("effect", [_reliability(one[:, known]) for one in each]),
            "effect_value": (("effect", "target"), effects),
            "score_value": (("score", "target"), values),
        },
        {"effect": list(EFFECTS), "score": names, "target": dataset["target"].values.astype(str)},
    )
    return found.isel(score=np.argsort(-rho[0], kind="stable"))  # NaN last


def _reliability(effects: Floats) -> float:
    """Rank correlation of the means over every other image: what no score can be far above."""
    if len(effects) < 2 or effects.shape[1] < _LEAST:
        return float("nan")
    return float(spearman(effects[::2].mean(axis=0), effects[1::2].mean(axis=0)))
