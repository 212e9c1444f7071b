"""Numbers beside the figures of analyses: against plain NumPy, and against the analyses."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from support.derived_inputs import (
    BATCHES,
    FC2,
    QKV,
    cube,
    drawn,
    large_sites,
    observations,
    two_sites,
)
from support.plot_inputs import LAYERS, SIGMA, raw_values
from taqstore.analysis import curve, groups, joint_bits
from taqstore.analysis.ranges.rules import marked
from taqstore.plot.kinds import groups as time_groups


def ema(values: list[np.ndarray], momentum: float) -> np.ndarray:
    average = values[0]
    for value in values[1:]:
        average = momentum * average + (1 - momentum) * value
    return average


def test_trajectories_are_absmax_its_polynomial_and_the_shift(tmp_path: Path) -> None:
    table = drawn("trajectories", two_sites(), tmp_path)["trajectories_mlp_fc2"]
    x, sigma = raw_values(), SIGMA.astype(np.float64)
    alpha = abs(x).max((2, 3))
    np.testing.assert_array_equal(cube(table, "alpha"), alpha)
    for layer in range(len(LAYERS)):
        degree = int(cube(table, "degree")[0, layer])
        fit = np.polyval(np.polyfit(sigma, alpha[:, layer], degree), sigma)
        # Three coefficients through four sigmas: the fit is no copy of the data.
        assert degree == 3 or not np.allclose(fit, alpha[:, layer], rtol=1e-3)
        np.testing.assert_allclose(cube(table, "fitted")[:, layer], fit, rtol=1e-9)
        gap = ((alpha[:, layer] - fit) ** 2).sum() / (len(sigma) * alpha[:, layer].var())
        np.testing.assert_allclose(cube(table, "r2")[:, layer], 1 - gap, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.95, 0.5])
def test_shift_is_the_moving_average_of_midpoints(momentum: float, tmp_path: Path) -> None:
    table = drawn("trajectories", two_sites(), tmp_path, momentum=momentum)
    shift = abs(ema([(part.min(2) + part.max(2)) / 2 for part in BATCHES], momentum))
    one = table["trajectories_mlp_fc2"]
    # The replay is in float32, as the source's.
    np.testing.assert_allclose(cube(one, "shift_absmax"), shift.max(-1), rtol=1e-5)
    np.testing.assert_allclose(cube(one, "shift_median"), np.median(shift, -1), rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
def test_curve_is_the_error_of_quantizing_the_values(bits: int, tmp_path: Path) -> None:
    options = {"bits": bits, "step": 1, "layers": ["mm1.img"]}
    (table,) = drawn("curve", {FC2: observations(10)}, tmp_path, **options).values()
    x, top = raw_values()[1, 2], 2 ** (bits - 1) - 1
    assert set(table["step"]) == {1}
    for row in table.itertuples():
        step = row.alpha / top
        error = np.mean((np.clip(np.rint(x / step), -top - 1, top) * step - x) ** 2)
        np.testing.assert_allclose(row.error, error, rtol=1e-9)
    marks = table[table["rule"] != "sweep"].set_index("rule")
    assert marks["share"].isna().all()
    assert marks.loc["absmax", "alpha"] == abs(x).max()
    extent = max(
        -np.mean([p[1, 2].min() for p in BATCHES]), np.mean([p[1, 2].max() for p in BATCHES])
    )
    np.testing.assert_allclose(marks.loc["average", "alpha"], extent, rtol=1e-6)
    assert marks["error"].idxmin() == "mse"


def test_curve_takes_the_middle_step_and_every_layer(tmp_path: Path) -> None:
    tables = drawn("curve", two_sites(), tmp_path)
    assert len(tables) == 5
    direct = curve(two_sites()[QKV].isel(step=[2])).transpose("step", "layer", ...)
    table = tables["curve_mm0_txt_attn_qkv"]
    swept = table[table["rule"] == "sweep"]
    # Older NumPy takes powers and sums of one step and of all of them by other kernels.
    np.testing.assert_allclose(swept["error"], direct["clip_error"].values[0, 1], rtol=1e-12)
    np.testing.assert_allclose(swept["alpha"], direct["clip_upper"].values[0, 1], rtol=1e-12)
    assert set(table["rule"]) == {"sweep", *marked()}


def test_group_errors_are_quartiles_over_the_layers_of_a_stream(tmp_path: Path) -> None:
    sites = large_sites()
    table = drawn("groups", sites, tmp_path)["groups_error"]
    direct = groups(sites["activations/mlp.fc2"])
    image = np.flatnonzero(direct["stream"] == "img")
    found = table[(table["site"] == "mlp.fc2") & (table["layer"] == "image stream")]
    for name in ("optimal", "cluster"):
        errors = direct[f"{name}_error"].values[image]
        best = direct["optimal_error"].values[image][:, -1:]
        expected = np.quantile(errors / best, time_groups.QUANTILES, axis=0)
        got = found.pivot(index="quantile", columns="groups", values=name)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    bucket = direct["sigma_error"].values[image] / direct["optimal_error"].values[image][:, -1]
    known = found[found["buckets"].notna()]
    assert set(known["groups"]) == {3}
    np.testing.assert_allclose(known["buckets"], np.quantile(bucket, time_groups.QUANTILES))
    counts = sorted(direct["group_count"].values[image])
    counts = [counts[int(np.ceil(share * len(counts))) - 1] for share in time_groups.QUANTILES]
    np.testing.assert_allclose(found.groupby("quantile")["group_count"].first(), counts)


def test_group_cuts_are_those_of_the_analysis(tmp_path: Path) -> None:
    table = drawn("groups", two_sites(), tmp_path, bits=6)["groups_cuts"]
    direct = groups(two_sites()[FC2], bits=6)["group"].transpose("step", "layer").values
    np.testing.assert_array_equal(cube(table, "group"), direct)
    assert direct.max() > 0


def test_layer_bits_are_the_best_of_all_allocations(tmp_path: Path) -> None:
    tables = drawn("bits", two_sites(), tmp_path, average=5.5)
    chosen = tables["bits_layers"]["layer_bits"].to_numpy()
    found = joint_bits(two_sites(), per="step")
    cost = np.concatenate([r["choice_error"].mean("step").values for r in found.values()])
    assert cost.shape == (5, 3)
    every = np.array(list(product(range(3), repeat=5)))
    allowed = every[(4 + 2 * every).mean(axis=1) <= 5.5]
    total = cost[np.arange(5), allowed].sum(axis=1)
    np.testing.assert_array_equal(chosen, 4 + 2 * allowed[total.argmin()])
    budget = tables["bits_budget"].set_index("average")
    np.testing.assert_allclose(budget.loc[5.5, "layer_error"], total.min() / 5, rtol=1e-12)


def test_budget_buys_less_error_and_meets_one_width_for_all(tmp_path: Path) -> None:
    tables = drawn("bits", two_sites(), tmp_path)
    budget = tables["bits_budget"].set_index("average")
    for name in ("layer_error", "step_error"):
        assert (np.diff(budget[name]) <= 0).all()
        ends = budget.loc[[4.0, 8.0]]
        np.testing.assert_allclose(ends[name], ends["uniform_error"], rtol=1e-12)
    assert (budget["step_error"] <= budget["layer_error"] * (1 + 1e-12)).all()
    assert (budget["step_error"] < 0.99 * budget["layer_error"]).any()
    direct = joint_bits(two_sites(), per="step")[FC2]["bits"].transpose("step", "layer")
    np.testing.assert_array_equal(cube(tables["bits_steps"], "bits"), direct)


def test_diff_is_log2_of_ranges_and_the_divergence_of_histograms(tmp_path: Path) -> None:
    first = two_sites()
    second = {
        path: data.assign(
            max=4 * data["max"], min=4 * data["min"], histogram=data["histogram"].roll(bin=3)
        )
        for path, data in first.items()
    }
    tables = drawn("diff", first, tmp_path, other=second)
    np.testing.assert_array_equal(tables["diff_range_log2"]["range_log2"], 2.0)
    counts = first[FC2]["histogram"].sum("batch").values.astype(float)
    p = counts / counts.sum(-1, keepdims=True)
    q = np.roll(p, 3, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.nan_to_num(side * np.log2(2 * side / (p + q))) for side in (p, q)]
    expected = sum(parts).sum(-1) / 2
    found = cube(tables["diff_jensen_shannon"], "jensen_shannon")
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert found.min() > 0.01


@pytest.mark.parametrize("momentum", [0.95, 0.6])
def test_order_band_covers_every_order_of_the_batches(momentum: float, tmp_path: Path) -> None:
    tables = drawn("order", two_sites(), tmp_path, momentum=momentum)
    orders = list(permutations(BATCHES))
    ends = [
        [ema([getattr(p, how)((2, 3)) for p in one], momentum) for one in orders]
        for how in ("min", "max")
    ]
    bounds = np.maximum(*(abs(np.array(end)) for end in ends))
    spread = 100 * (bounds.max(0) - bounds.min(0)) / bounds[0]
    found = cube(tables["order_alpha_spread"], "alpha_spread")
    np.testing.assert_allclose(found, spread, rtol=1e-10)
    worst = spread.argmax(0)
    band = tables["order_band"].iloc[: len(LAYERS)]
    np.testing.assert_array_equal(band["step"], worst)
    at_worst = bounds[:, worst, np.arange(len(LAYERS))]
    names = ("low", "lower_quartile", "upper_quartile", "high")
    got = band[[f"alpha_{name}" for name in names]].to_numpy().T
    np.testing.assert_allclose(got, np.quantile(at_worst, (0, 0.25, 0.75, 1), axis=0), rtol=1e-12)
    middle = np.array([ema([(p.min(2) + p.max(2)) / 2 for p in one], momentum) for one in orders])
    width = raw_values().max(2) - raw_values().min(2)
    moved = 100 * ((middle.max(0) - middle.min(0)) / width).max(-1)
    found = cube(tables["order_shift_spread"], "shift_spread")
    np.testing.assert_allclose(found, moved, rtol=1e-6)
