"""Two runs compared: each number against its definition, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from support.statistics_synthetic import STEPS, activations, observed, run_groups, synthetic_run
from taqstore.analysis.difference import difference, variable_difference
from taqstore.errors import LayoutError, MissingError
from taqstore.query.diff import diff, movers

X = activations("mlp.fc1")
Y = (1.5 * activations("mlp.fc1", seed=6)).astype(np.float16)
Y[:, 3, 1] *= np.float16(4)


@pytest.fixture(scope="module")
def pair() -> tuple[xr.Dataset, xr.Dataset]:
    return observed("mlp.fc1", X, mantissa_bits=5), observed("mlp.fc1", Y, mantissa_bits=5)


def extrema(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = x.astype(np.float64)
    return wide.min(axis=(0, 3)), wide.max(axis=(0, 3))


def test_ranges_and_shifts(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    got = difference(*pair)
    (low, high), (low2, high2) = extrema(X), extrema(Y)
    span, span2 = (h.max(-1) - b.min(-1) for b, h in ((low, high), (low2, high2)))
    np.testing.assert_allclose(got["range_ratio"], span2 / span, rtol=1e-14)
    top, top2 = (np.maximum(-b, h).max(-1) for b, h in ((low, high), (low2, high2)))
    np.testing.assert_allclose(got["alpha_ratio"], top2 / top, rtol=1e-14)
    width, width2 = high - low, high2 - low2
    both = (width > 0) & (width2 > 0)
    ratio = np.where(both, width2 / np.where(both, width, 1), 1.0)
    np.testing.assert_allclose(
        got["channel_range_log2"], np.abs(np.log2(ratio)).max(-1), rtol=1e-13
    )
    moved = np.abs((low2 + high2) / 2 - (low + high) / 2)
    share = np.where(width > 0, moved / np.where(width > 0, width, 1), 0)
    np.testing.assert_allclose(got["shift_drift"], share.max(-1), rtol=1e-13)


def test_distributions() -> None:
    """At 10 mantissa bits the counts are those of the values: naive sums over all float16."""
    exact = (observed("mlp.fc1", z).isel(step=[0, 3], batch=[0, 2]) for z in (X, Y))
    got = difference(*exact)
    for step in (0, 1):
        for layer in range(3):
            a, b = (np.sort(z[[0, 2], 3 * step, layer].astype(np.float64).ravel()) for z in (X, Y))
            every = np.unique(np.concatenate([a, b]))
            p, q = (np.array([(z == v).mean() for v in every]) for z in (a, b))
            m = (p + q) / 2
            bits = sum((s[s > 0] * np.log2(s[s > 0] / m[s > 0])).sum() for s in (p, q)) / 2
            found = got.isel(step=step, layer=layer)
            assert float(found["jensen_shannon"]) == pytest.approx(bits, rel=1e-9)
            # Equally many values: sorted ones are matched. A bin is spread over one ulp.
            distance = np.abs(a - b).mean()
            assert float(found["wasserstein"]) == pytest.approx(distance, rel=2e-3)


def test_a_run_beside_itself_does_not_move(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    got = difference(pair[0], pair[0].isel(batch=[3, 1, 0, 2]))
    for name in ("channel_range_log2", "shift_drift", "jensen_shannon", "wasserstein"):
        np.testing.assert_allclose(got[name], 0, atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(got["range_ratio"], 1.0)
    assert got.attrs["store_digest"] == got.attrs["second_store_digest"] == "feed"


def test_finer_histograms_are_coarsened(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    coarse = observed("mlp.fc1", Y, mantissa_bits=3)
    mixed = difference(pair[0], coarse)
    plain = difference(observed("mlp.fc1", X, mantissa_bits=3), coarse)
    xr.testing.assert_equal(mixed["jensen_shannon"], plain["jensen_shannon"])
    assert (mixed["jensen_shannon"] <= difference(*pair)["jensen_shannon"] + 1e-12).all()


def test_labels_in_common_only(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    first, second = pair
    got = difference(
        first.isel(layer=[2, 0, 1], step=slice(2, None)), second.isel(layer=[0, 2], batch=[0])
    )
    assert got["layer"].values.tolist() == ["mm1.img", "mm0.img"]
    assert got["step"].values.tolist() == STEPS[2:]
    other = difference(first.isel(layer=[2, 0]), second.isel(batch=[0], layer=[2, 0]))
    xr.testing.assert_equal(got, other.isel(step=slice(2, None)))


def test_pooled_statistics_with_edges_of_their_own() -> None:
    run, document = synthetic_run()
    first = run_groups(run, document)["pooled/timestep_stats/mlp.fc2"]
    moved = first.assign({n: first[n] + 0.5 for n in ("avg_min", "avg_max", "shift", "hist_edges")})
    got = difference(first, moved)
    np.testing.assert_allclose(got["wasserstein"], 0.5, rtol=1e-9)
    np.testing.assert_allclose(got["range_ratio"], 1.0, rtol=1e-6)
    width = first["avg_max"] - first["avg_min"]
    expected = (0.5 / width.where(width > 0)).max("channel")
    np.testing.assert_allclose(got["shift_drift"].where(width.min("channel") > 0),
                               expected.where(width.min("channel") > 0), rtol=1e-12)  # fmt: skip


def test_lazy_and_equal(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    lazy = difference(*(side.chunk({"batch": 1}) for side in pair))
    assert all(variable.chunks for variable in lazy.data_vars.values())
    xr.testing.assert_allclose(
        lazy.compute(scheduler="synchronous"), difference(*pair), rtol=1e-13, atol=1e-15
    )


def test_any_variable_label_by_label(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    first, second = pair
    got = variable_difference(first, second.isel(batch=[2, 1]), "mean")
    a, b = (side["mean"].values[[1, 2]] for side in pair)
    assert got["difference_max"].dims == ("batch", "step", "layer")
    np.testing.assert_allclose(got["difference_max"], np.abs(b - a).max(-1), rtol=1e-13)
    np.testing.assert_allclose(got["difference_mean"], np.abs(b - a).mean(-1), rtol=1e-13)
    relative = np.linalg.norm(b - a, axis=-1) / np.linalg.norm(a, axis=-1)
    np.testing.assert_allclose(got["difference_relative"], relative, rtol=1e-13)
    assert got.attrs["variable"] == "mean"


def test_movers_come_first(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    first, second = ({"activations/mlp.fc1": side} for side in pair)
    table = movers(diff(first, second))
    assert (np.diff(table["jensen_shannon"]) <= 0).all()
    assert len(table) == len(STEPS) * 3
    assert list(table.columns[:3]) == ["site", "step", "layer"]
    by = movers(diff(first, second), by="alpha_ratio")["alpha_ratio"].to_numpy()
    assert (np.diff(np.abs(np.log(by))) <= 0).all()
    ratios = difference(*pair)["alpha_ratio"].values.ravel()
    assert by[0] == ratios[np.abs(np.log(ratios)).argmax()]
    assert sorted(by) == sorted(ratios)


def test_refusals(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    first, second = pair
    with pytest.raises(MissingError, match=r"no step in common \(found 0, 3 and 30, 31\)"):
        difference(first.isel(step=[0, 1]), second.isel(step=[-2, -1]))
    with pytest.raises(LayoutError, match=r"differ in channels \(found 7 and 6\)"):
        difference(first, second.isel(channel=slice(6)))
    with pytest.raises(MissingError, match="difference needs min with max or"):
        difference(first[["mean"]], second[["mean"]])
    with pytest.raises(MissingError, match="no variable 'alpha'"):
        variable_difference(first, second, "alpha")
    with pytest.raises(MissingError, match="no statistics in common"):
        diff({"activations/a": first}, {"latents": second})
    with pytest.raises(MissingError, match="no column 'jensen'"):
        movers(diff({"activations/mlp.fc1": first}, {"activations/mlp.fc1": second}), by="jensen")
