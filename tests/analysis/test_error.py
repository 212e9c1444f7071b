"""Error, curve, groups and bits: against the data, exhaustive search, and as lazy analyses."""

from __future__ import annotations

from itertools import combinations, pairwise, product
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from support.statistics_synthetic import activations, observed, run_groups, synthetic_run
from taqstore.analysis import ANALYSES, bits, curve, error, groups, joint_bits, scales
from taqstore.analysis.error import errors
from taqstore.errors import MissingError, TaqError
from taqstore.quantization.quantizer import Quantizer, affine, symmetric
from taqstore.query.analyze import analyze
from taqstore.statistics import Layout


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """(batch, step, layer, row, channel) float16, few steps."""
    return activations("mlp.fc2")[:, :6]


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return observed("mlp.fc2", activations("mlp.fc2")).isel(step=slice(6))


@pytest.fixture(scope="module")
def coarse() -> xr.Dataset:
    """The same with 5 mantissa bits."""
    return observed("mlp.fc2", activations("mlp.fc2"), mantissa_bits=5).isel(step=slice(6))


@pytest.fixture(scope="module")
def pooled() -> xr.Dataset:
    return run_groups(*synthetic_run())["pooled/timestep_stats/mlp.fc2"]


def squared(x: np.ndarray, quantizer: Quantizer) -> np.ndarray:
    wide = x.astype(np.float64)
    return np.square(wide - quantizer.fake_quantize(wide))


# -- error and curve -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_errors_are_those_of_the_data(x: np.ndarray, data: xr.Dataset, is_symmetric: bool) -> None:
    got = error(data, bits=4, symmetric=is_symmetric, clip="percentile", percentile=98)
    for step, layer in np.ndindex(6, 3):
        wide = x[:, step, layer].astype(np.float64)
        at = got.isel(step=step, layer=layer)
        low, high = at["lower"].item(), at["upper"].item()
        q = symmetric(high, bits=4) if is_symmetric else affine(low, high, bits=4)
        found = squared(wide, q).mean()
        assert at["error"].item() == pytest.approx(found, rel=1e-12)
        ends = [level * q.step_size for level in q.levels]
        lost = np.square(wide - np.clip(wide, *ends)).mean()
        assert at["clip_loss"].item() == pytest.approx(lost, rel=1e-12)
        sqnr = 10 * np.log10(np.square(wide).mean() / found)
        assert at["sqnr"].item() == pytest.approx(sqnr, rel=1e-12)
        outside = ((wide < low) | (wide > high)).mean()
        assert 0 < outside < 0.1
        assert at["clipped_share"].item() == pytest.approx(outside, rel=1e-12)


def test_a_bin_that_a_bound_cuts_is_clipped_by_its_share(coarse: xr.Dataset) -> None:
    """Against sums over bins of the histogram, whose values are spread evenly."""
    edges = Layout(mantissa_bits=5).edges()
    plain = coarse.drop_vars(["min", "max"])  # no value is known apart
    low, high = -0.03, 0.4
    got = error(plain, symmetric=False, bounds=(low, high))["clipped_share"]
    counts = coarse["histogram"].sum("batch").transpose("step", "layer", "bin").values
    for step, layer in np.ndindex(*counts.shape[:2]):
        held = sum(
            n * (max(0.0, min(high, b) - max(low, a)) / (b - a))
            for n, (a, b) in zip(counts[step, layer], pairwise(edges), strict=True)
        )
        expected = 1 - held / counts[step, layer].sum()
        assert got.values[step, layer] == pytest.approx(expected, rel=1e-10)


def test_nothing_is_clipped_by_the_extrema(coarse: xr.Dataset) -> None:
    for balanced in (True, False):
        assert (error(coarse, symmetric=balanced)["clipped_share"] == 0).all()


def test_a_static_range_is_priced_at_every_step(data: xr.Dataset) -> None:
    static = scales(data, clip="mse", bits=4, cuts="static")["alpha"].values[0]
    got = error(data, clip="mse", bits=4, cuts="static")
    np.testing.assert_array_equal(got["alpha"], np.broadcast_to(static, (6, 3)))
    given = error(data, bits=4, bounds=(0.0, xr.DataArray(static, dims="layer")))
    np.testing.assert_allclose(got["error"], given["error"].transpose("step", "layer"), rtol=1e-13)
    each = error(data, clip="mse", bits=4)["error"]
    assert (each <= got["error"] * (1 + 5e-3)).all()


@pytest.mark.parametrize("source", ["data", "coarse", "pooled"])
def test_errors_priced_together_are_those_of_each(
    source: str, request: pytest.FixtureRequest
) -> None:
    given: xr.Dataset = request.getfixturevalue(source)
    keys = list(product((8, 4, 3), ("absmax", "percentile", "mse", "ema"), (None, "static", (2,))))
    asked = {key: dict(zip(("bits", "clip", "cuts"), key, strict=True)) for key in keys}
    found, missing = errors(given, asked)
    assert set(found) | set(missing) == set(keys)
    assert not set(found) & set(missing)
    for key, one in asked.items():
        if key in missing:
            with pytest.raises(MissingError) as refused:
                error(given, **one)
            assert str(refused.value) == str(missing[key])
            continue
        alone = error(given, **one)
        xr.testing.assert_identical(found[key].compute(), alone[["error", "sqnr"]].compute())


def test_curve_holds_the_errors_of_its_ranges(data: xr.Dataset) -> None:
    got = curve(data, bits=4, symmetric=False, ratios=[0.1, 0.7, 1.0])
    for index in range(3):
        part = got.isel(ratio=index)
        bounds = (part["clip_lower"], part["clip_upper"])
        expected = error(data, bits=4, symmetric=False, bounds=bounds)["error"]
        np.testing.assert_allclose(part["clip_error"], expected, rtol=1e-13)
    for rule in got["rule"].values:
        expected = error(data, bits=4, symmetric=False, clip=rule)["error"]
        np.testing.assert_allclose(got["rule_error"].sel(rule=rule), expected, rtol=1e-13)
    best = got["rule_error"].sel(rule="mse")
    assert (best <= 1.0005 * got["rule_error"]).all()
    assert (best <= 1.0005 * got["clip_error"]).all()


def test_curve_names_the_rules_it_cannot_mark(pooled: xr.Dataset) -> None:
    got = curve(pooled, ratios=[0.5])
    assert got.attrs["left_out"] == "ema, mean_percentile"
    assert "mse" in got["rule"].values


# -- groups ----------------------------------------------------------------------------------------


def test_best_groups_equal_exhaustive_search_on_the_data(x: np.ndarray, data: xr.Dataset) -> None:
    """Every partition priced from the data itself, each group at the grid's clip bounds."""
    got = groups(data, bits=4)
    steps = 2.0 ** (np.arange(-8 * 32, 3 * 32) / 32)
    layer = 1
    table = np.empty((6, len(steps)))
    for step in range(6):
        wide = x[:, step, layer].astype(np.float64).ravel()
        table[step] = [squared(wide, symmetric(7 * s, bits=4)).sum() for s in steps]
    size = x[:, :, layer].size
    for count in range(1, 7):
        best = min(
            sum(table[a:b].sum(axis=0).min() for a, b in pairwise((0, *cut, 6)))
            for cut in combinations(range(1, 6), count - 1)
        )
        found = got["optimal_error"].values[layer, count - 1]
        assert found == pytest.approx(best / size, rel=1e-10)


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"shared": True}, {"bits": 8}])
def test_best_groups_beat_the_others_and_more_are_never_worse(
    coarse: xr.Dataset, options: dict[str, Any]
) -> None:
    got = groups(coarse, **{"bits": 4, **options})
    assert (got["optimal_error"] <= got["cluster_error"] * (1 + 1e-12)).all()
    more = got["optimal_error"].diff("groups")
    assert (more <= 1e-12 * got["optimal_error"].max()).all()  # rounding of sums
    by_sigma = groups(coarse, method="sigma", **{"bits": 4, **options})
    count = by_sigma["group_count"]
    at = got["optimal_error"].sel(groups=count)
    assert (at <= got["sigma_error"] * (1 + 1e-12)).all()


def test_chosen_groups_keep_the_tolerance_and_have_their_best_range(
    x: np.ndarray, data: xr.Dataset
) -> None:
    got = groups(data, bits=4, tolerance=0.1)
    for layer in range(3):
        curve_ = got["optimal_error"].values[layer]
        count = int(got["group_count"][layer])
        assert curve_[count - 1] <= 1.1 * curve_[-1]
        assert count == 1 or curve_[count - 2] > 1.1 * curve_[-1]
        total = sum(
            squared(x[:, step, layer], symmetric(got["alpha"].values[step, layer], bits=4)).sum()
            for step in range(6)
        )
        assert total / x[:, :, layer].size <= curve_[count - 1] * (1 + 1e-9)
        group = got["group"].values[layer]
        assert len(set(zip(group, got["alpha"].values[:, layer], strict=True))) == count


def test_fixed_count_and_pooled_histograms(pooled: xr.Dataset) -> None:
    got = groups(pooled, method="cluster", count=3)
    known = got["optimal_error"].notnull().all("groups")
    assert known.any()
    assert (got["group_count"].where(known, 3) == 3).all()
    assert (got["optimal_error"] <= got["cluster_error"] * (1 + 1e-12)).where(known, True).all()


def test_layers_never_counted_have_no_groups(coarse: xr.Dataset) -> None:
    empty = coarse.copy()
    empty["histogram"] = (
        coarse["histogram"].where(coarse["layer"] != "mm0.txt", 0).astype(np.uint32)
    )
    empty["histogram"].attrs = coarse["histogram"].attrs
    got = groups(empty, bits=4)
    assert (got["group"].sel(layer="mm0.txt") == -1).all()
    assert got["group_count"].sel(layer="mm0.txt") == 0
    assert np.isnan(got["optimal_error"].sel(layer="mm0.txt")).all()
    assert (got["group"].sel(layer="mm0.img") >= 0).all()
    assert bits(empty)["bits"].values.tolist()[1] == 0


@pytest.mark.parametrize("cuts", ["static", (1, 2, 3, 4, 5), (2, 5), (4,)])
def test_given_groups_cost_what_the_data_say(x: np.ndarray, data: xr.Dataset, cuts: Any) -> None:
    """Each group priced from the data itself, at the grid's clip bounds."""
    labels = cuts if cuts == "static" else data["step"].values[list(cuts)].tolist()
    got = groups(data, bits=4, method="given", cuts=labels)
    steps, layer = 2.0 ** (np.arange(-8 * 32, 3 * 32) / 32), 1
    starts = [0, *(() if cuts == "static" else cuts), 6]
    total = 0.0
    for first, last in pairwise(starts):
        wide = x[:, first:last, layer].astype(np.float64)
        total += min(squared(wide, symmetric(7 * s, bits=4)).sum() for s in steps)
    found = got["given_error"].values[layer]
    assert found == pytest.approx(total / x[:, :, layer].size, rel=1e-10)
    assert found >= got["optimal_error"].values[layer, len(starts) - 2] * (1 - 1e-12)
    assert got["group"].values[layer].tolist() == [
        number for number, (a, b) in enumerate(pairwise(starts)) for _ in range(a, b)
    ]


def test_given_groups_are_refused_where_no_step_begins(data: xr.Dataset) -> None:
    with pytest.raises(MissingError, match="no group of steps can begin at 99"):
        groups(data, method="given", cuts=(99,))
    with pytest.raises(TaqError, match="method given needs cuts"):
        groups(data, method="given")
    with pytest.raises(TaqError, match="cuts goes with method given"):
        groups(data, cuts=(2,))


# -- bits ------------------------------------------------------------------------------------------


def test_bits_equal_exhaustive_search(coarse: xr.Dataset) -> None:
    for average in (4.0, 5.4, 6.7):
        got = bits(coarse, average=average)
        cost = got["choice_error"].transpose("layer", "choice").values
        assert (np.diff(cost) < 0).all()
        options = [
            p for p in product(range(3), repeat=3) if sum((4, 6, 8)[k] for k in p) <= 3 * average
        ]
        least = min(sum(cost[i, k] for i, k in enumerate(p)) for p in options)
        assert got["allocated_error"].sum().item() == pytest.approx(least, rel=1e-13)
        assert got["bits"].mean() <= average


def test_choice_errors_are_those_of_the_analysis_error(coarse: xr.Dataset) -> None:
    got = bits(coarse, per="step", weight="absolute", choices=(3, 8))
    for width in (3, 8):
        expected = error(coarse, clip="mse", bits=width)
        np.testing.assert_allclose(
            got["choice_error"].sel(choice=width), expected["error"], rtol=1e-12
        )
    relative = bits(coarse, per="step", choices=(3, 8))["choice_error"].sel(choice=8)
    sqnr = error(coarse, clip="mse", bits=8)["sqnr"]
    np.testing.assert_allclose(-10 * np.log10(relative), sqnr, rtol=1e-12)


def test_one_budget_for_all_sites(coarse: xr.Dataset) -> None:
    """Together never worse than apart, within the same budget."""
    other = observed("mlp.fc1", 5 * activations("mlp.fc1", layers=2), mantissa_bits=5).isel(
        step=slice(6)
    )
    stored = {"activations/mlp.fc1": other, "activations/mlp.fc2": coarse}
    together = analyze("bits", stored, average=5.5)
    assert set(together) == set(stored)
    assert np.concatenate([r["bits"].values for r in together.values()]).mean() <= 5.5
    apart = [bits(d, average=5.5)["allocated_error"].sum() for d in stored.values()]
    assert sum(r["allocated_error"].sum() for r in together.values()) <= sum(apart) * (1 + 1e-12)
    one = analyze("bits", stored, average=5.5, sites=["mlp.fc2"])
    xr.testing.assert_identical(one["activations/mlp.fc2"], bits(coarse, average=5.5))
    only = joint_bits({"a": coarse}, average=6.0)["a"]
    assert only.attrs["choices"] == [4, 6, 8]


# -- as analyses -----------------------------------------------------------------------------------

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "error": ("error", {"bits": 6}),
    "static error": ("error", {"clip": "mse", "cuts": "static", "symmetric": False}),
    "curve": ("curve", {"ratios": [0.25, 1.0], "rules": ["absmax", "mse"]}),
    "groups": ("groups", {"bits": 4}),
    "clusters": ("groups", {"bits": 4, "method": "cluster", "count": 2}),
    "shared": ("groups", {"bits": 4, "shared": True}),
    "bits": ("bits", {"average": 5.0}),
    "bits per step": ("bits", {"per": "step", "average": 5.0}),
    "mse scales": ("scales", {"clip": "mse", "cuts": [5]}),
    "ema scales": ("scales", {"clip": "ema", "order": [1, 0, 3, 2]}),
    "entropy scales": ("scales", {"clip": "entropy", "symmetric": False}),
}
POOLED = ("error", "static error", "curve", "groups", "shared", "bits", "mse scales")


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("computed")


def chunked(dataset: xr.Dataset) -> xr.Dataset:
    return dataset.chunk({"batch": 1} if "batch" in dataset.dims else {"layer": 1, "step": 4})


@pytest.mark.parametrize(
    ("case", "source"), [*((c, "observed") for c in CASES), *((c, "pooled") for c in POOLED)]
)
def test_lazy_equal_and_documented(
    coarse: xr.Dataset, pooled: xr.Dataset, case: str, source: str
) -> None:
    """Sums of floats may differ in their last digits; integers and grid points may not."""
    name, options = CASES[case]
    options = {**options, "cuts": [6]} if "cuts" in options and source == "pooled" else options
    dataset = coarse if source == "observed" else pooled
    eager = ANALYSES[name].load()(dataset, **options)
    with dask.config.set(scheduler=forbidden):
        lazy = ANALYSES[name].load()(chunked(dataset), **options)
    assert all(variable.chunks for variable in lazy.data_vars.values() if variable.ndim)
    loaded = lazy.compute(scheduler="synchronous")
    xr.testing.assert_allclose(loaded, eager, rtol=1e-11, atol=0)
    assert loaded.attrs == eager.attrs
    assert eager.attrs["analysis"] == name
    assert eager.attrs["store_digest"] == "feed"
    for variable in eager.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["description"]
    eager.drop_vars("image", errors="ignore").to_netcdf()


@pytest.mark.parametrize("case", CASES)
def test_tasks_do_not_grow_with_layers(coarse: xr.Dataset, case: str) -> None:
    name, options = CASES[case]
    many = xr.concat([coarse] * 5, dim="layer", data_vars="minimal").assign_coords(
        layer=[f"uni{i}" for i in range(5 * coarse.sizes["layer"])]
    )
    one, five = (
        len(dict(ANALYSES[name].load()(d.chunk({"batch": 1}), **options).__dask_graph__() or {}))
        for d in (coarse, many)
    )
    assert 0 < one == five


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("groups", {"method": "kmeans"}, "method 'kmeans' is not known"),
        ("groups", {"count": 9}, r"6 steps make 1 to 6 groups \(found 9\)"),
        ("groups", {"tolerance": -1}, "at least 0"),
        ("bits", {"average": 3}, "less than the smallest choice"),
        ("bits", {"choices": ()}, "no bit widths"),
        ("bits", {"per": "token"}, "per 'token'"),
        ("bits", {"choices": (1, 4)}, "choices must be 2 to 16"),
        ("curve", {"ratios": [0.0, 1.0]}, "ratios of a curve are above 0"),
        (
            "error",
            {"narrow_range": True, "symmetric": False},
            "narrow_range does not go",
        ),
    ],
)
def test_options_that_make_no_sense(
    coarse: xr.Dataset, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TaqError, match=message):
        ANALYSES[name].load()(coarse, **options)


HELD = "pooled/timestep_stats/<site>"


@pytest.mark.parametrize("name", ["error", "curve", "groups", "bits"])
def test_without_histograms(coarse: xr.Dataset, name: str) -> None:
    with pytest.raises(MissingError, match=rf"{name} needs hist_counts with hist_edges.*{HELD}"):
        ANALYSES[name].load()(coarse.drop_vars("histogram"))
