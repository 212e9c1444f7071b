"""How many images, or steps, a clip bound or an expected error takes to settle."""

from __future__ import annotations

from itertools import takewhile
from math import nan
from typing import Any, Literal

import numpy as np
import xarray as xr

from taqstore.analysis.error import error
from taqstore.analysis.ranges.clip import Clip, clip_range
from taqstore.analysis.ranges.rules import Rule
from taqstore.analysis.ranges.subset_answers import Ask, answers
from taqstore.analysis.scales import checked_scheme
from taqstore.analysis.shared.inputs import Array, finish, require
from taqstore.analysis.table import of_row
from taqstore.errors import MissingError, problem
from taqstore.statistics.learning_curve import FACTOR, LEAST, Moves, Subsets

_NAME = "enough"
_LOW, _HIGH = 0.05, 0.95


@of_row(_NAME)
def enough(
    dataset: xr.Dataset,
    *,
    score: str = "bound",
    clip: Rule = "absmax",
    percentile: float | None = None,
    momentum: float | None = None,
    bits: int = 8,
    symmetric: bool = True,
    tolerance: float = 0.02,
    along: Literal["images", "steps"] = "images",
    orders: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    """How an answer moves with more batches or steps, and how many of them are enough.

    The answer has a value for every step and layer; `m(n)`, its move at n batches, is the root
    mean square over steps and layers of ``ln(answer of 4 n / answer of n)``, with the n among the
    4 n: what 4 times the images would change, 0.02 for 2 %. Up to a quarter of the batches it is
    measured, over random nested subsets; beyond that extrapolated (`statistics.learning_curve`):
    moves of doublings fall as ``n^-p``, p is fitted to them and weighed against 1/2 (averages) or
    1/3 (extrema). Cells without a positive answer in every subset are left out.

    Parameters
    ----------
    dataset
        Observations: a pooled source has lost its batches.
    score
        `bound`: the clip bound, per step. `error`: the expected squared error of quantizing with
        it what the subset holds.
    clip, percentile, momentum, bits, symmetric
        As in `scales`. Of an affine range the width is looked at.
    tolerance
        The move that is small enough.
    along
        `images`: subsets of batches. `steps`: every s-th step from any first one, all batches;
        the answer is then one for all steps, and nothing is extrapolated.
    orders
        Random orders of batches that subsets are cut from.
    seed
        Of the orders.

    Returns
    -------
    Dataset
        Along images, over (layer): `expected_move`, what 4 times these images would change, with
        `expected_low` and `expected_high`, between which 9 of 10 single moves lie; `enough`, the
        least number whose move is below the tolerance (infinite where out of sight), and
        `is_enough`, whether there are as many. Without a dimension the same of all layers:
        `site_move`, `site_low`, `site_high`, `site_enough`, `site_is_enough`, and `power`, p. Over
        (size): `move` where measured, else NaN; `fitted_move`; `deviation` from the answer of all,
        the mean over subsets, with `deviation_low` and `deviation_high`, 5 and 95 %. Sizes count
        batches. Along steps, over (size): `deviation` and its ends; without a dimension
        `site_enough` and `site_is_enough`: steps that are enough, of all.

    Raises
    ------
    MissingError
        There are no observations, too few batches or steps, or the rule lacks a variable.
    MisuseError
        An option out of its range, or that does not go with the others.
    """
    require(dataset, ("batch", "tensor_min"), ("batch", "min"), analysis=_NAME)
    rule = Clip.of(clip, percentile=percentile, momentum=momentum)
    asked = {
        "bits": bits,
        "symmetric": symmetric,
        "clip": clip,
        "percentile": percentile,
        "momentum": momentum,
    }
    ask = _asking(score, rule, asked, static=along == "steps")
    if along == "steps":
        result = _along_steps(dataset, ask, tolerance)
    else:
        needs = "histogram" if score == "error" else rule.row.needs
        result = _along_images(dataset, ask, needs, rule, tolerance, orders, seed)
    stamp = {**rule.stamp, "bits": bits, "symmetric": symmetric, "tolerance": tolerance}
    stamp |= {"score": score, "along": along, "orders": orders, "seed": seed}
    return finish(result, dataset, _NAME, **stamp)


def _asking(score: str, rule: Clip, options: dict[str, Any], *, static: bool) -> Ask:
    """The question: a bound, the width of an affine range, or an expected error."""
    scheme = checked_scheme(options["bits"], options["symmetric"], False)

    def bound(dataset: xr.Dataset) -> xr.DataArray:
        found = clip_range(dataset, rule, scheme, static=static, analysis=_NAME)
        return found.upper - found.lower

    def expected(dataset: xr.Dataset) -> xr.DataArray:
        given = {**options, "cuts": "static"} if static else options
        priced = error(dataset, **given)["error"]
        return priced.mean("step") if static else priced

    return bound if score == "bound" else expected


def _along_images(
    dataset: xr.Dataset, ask: Ask, needs: str, rule: Clip, tolerance: float, orders: int, seed: int
) -> xr.Dataset:
    batches = dataset.sizes["batch"]
    if batches < LEAST:
        what = f"{_NAME} measures what {FACTOR} times the batches change"
        raise MissingError(problem(what, found=f"{batches}", remedy=f"collect {LEAST} or more"))
    subsets = Subsets.of(batches, orders=orders, seed=seed)
    found = answers(dataset, subsets.members, ask, needs=needs, merges=rule.row.merges)
    logs, known = _logs(found)
    every = _moves(logs, known, subsets)
    layers = [_moves(logs[..., i : i + 1], known[..., i : i + 1], subsets)
              for i in range(logs.shape[-1])]  # fmt: skip
    single = [_verdict(moves, tolerance) for moves in layers]
    columns = {
        name: ("layer", np.array([row[key] for row in single]))
        for name, key in (
            ("expected_move", "move"),
            ("expected_low", "low"),
            ("expected_high", "high"),
            ("enough", "enough"),
            ("is_enough", "is_enough"),
        )
    }
    whole = {f"site_{key}": ((), value) for key, value in _verdict(every, tolerance).items()}
    power = every.power[0] if every is not None else nan
    return xr.Dataset(
        {**whole, "power": ((), power), **columns, **_curve(every)},
        {"layer": dataset["layer"].values, "size": _sizes(batches)},
    )


def _logs(found: Array) -> tuple[Array, Array]:
    """Logarithms of answers, and which cells (step, layer) have one in every subset."""
    positive = np.isfinite(found) & (found > 0)
    known = np.asarray(positive.all(axis=0))
    return np.log(np.where(positive, found, 1.0)), known


def _moves(logs: Array, known: Array, subsets: Subsets) -> Moves | None:
    """None where no cell has an answer."""
    return Moves(logs[:, known], subsets) if known.any() else None


def _verdict(moves: Moves | None, tolerance: float) -> dict[str, Any]:
    if moves is None:
        return {"move": nan, "low": nan, "high": nan, "enough": nan, "is_enough": False}
    low, high = moves.interval(moves.items)
    expected = moves.expected(moves.items)
    return {
        "move": expected,
        "low": low,
        "high": high,
        "enough": moves.enough(tolerance),
        "is_enough": expected < tolerance,
    }


def _sizes(batches: int) -> list[int]:
    return sorted({*(1 << k for k in range(batches.bit_length())), batches})


def _curve(moves: Moves | None) -> dict[str, Any]:
    if moves is None:
        return {}
    sizes = _sizes(moves.items)
    away = [moves.deviation(n) for n in sizes]
    rows = {
        "move": [moves.moved(n) if n * FACTOR <= moves.items else nan for n in sizes],
        "fitted_move": [moves.expected(n) for n in sizes],
        "deviation": [float(one.mean()) for one in away],
        "deviation_low": [float(np.quantile(one, _LOW)) for one in away],
        "deviation_high": [float(np.quantile(one, _HIGH)) for one in away],
    }
    return {name: ("size", values) for name, values in rows.items()}


def _along_steps(dataset: xr.Dataset, ask: Ask, tolerance: float) -> xr.Dataset:
    """Static answers of every s-th step, s = 1, 2, 4, ..., against that of all steps."""
    steps = dataset.sizes["step"]
    strides = [1 << k for k in range(max(1, steps.bit_length()))]
    if steps < 2:
        raise MissingError(problem(f"{_NAME} along steps needs several", found=str(steps)))
    rows = {
        stride: np.array(
            [ask(dataset.isel(step=slice(first, None, stride))) for first in range(stride)]
        )
        for stride in strides
        if stride <= steps
    }
    positive = np.all([((r > 0) & np.isfinite(r)).all(axis=0) for r in rows.values()], axis=0)
    logs = {stride: np.log(np.where(positive, r, 1.0))[:, positive] for stride, r in rows.items()}
    some = bool(positive.any())
    away = {
        s: np.sqrt(np.square(log - logs[1][0]).mean(axis=1)) if some else np.full(len(log), nan)
        for s, log in logs.items()
    }
    order = sorted(away, reverse=True)
    rms = {s: float(np.sqrt(np.square(one).mean())) for s, one in away.items()}
    # From all steps on, as long as fewer would do.
    settled = list(takewhile(lambda stride: rms[stride] < tolerance, sorted(away)))
    fewest = settled[-1] if settled else 1
    return xr.Dataset(
        {
            "site_enough": ((), float(-(-steps // fewest)) if some else nan),
            "site_is_enough": ((), some),
            "deviation": ("size", [rms[s] for s in order]),
            "deviation_low": ("size", [float(np.quantile(away[s], _LOW)) for s in order]),
            "deviation_high": ("size", [float(np.quantile(away[s], _HIGH)) for s in order]),
        },
        {"size": [-(-steps // s) for s in order], "stride": ("size", order)},
    )
