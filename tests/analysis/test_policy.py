"""Policies of first and last steps against sums written out, and static costs in their place."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from support.effects_store import sensitivity
from taqstore import open_store
from taqstore.errors import MissingError, MisuseError, TaqError
from taqstore.query import analyze

STEPS = 9
NAMES = [str(step) for step in range(STEPS)]


@pytest.fixture
def groups() -> dict[str, xr.Dataset]:
    return {
        "sensitivity/step/a4-static": sensitivity(NAMES, seed=1, inputs=True),
        "sensitivity/step/a8-static": sensitivity(NAMES, seed=2, inputs=True, size=0.02),
    }


def brute(groups: dict[str, xr.Dataset], first: int, last: int, fine: str = "") -> float:
    """Mean over images of |sum| / |final|, by loops over steps."""
    data = groups["sensitivity/step/a4-static"]
    errors = []
    for image in range(data.sizes["image"]):
        total = np.zeros((2, 3, 4))
        for step in range(STEPS):
            protected = step < first or step >= STEPS - last
            if protected and not fine:
                continue
            own = groups[f"sensitivity/step/{fine}"] if protected else data
            total += own["delta"].values[image, step].astype(np.float64)
        errors.append(np.sqrt((total**2).sum()) / data["latent_norm"].values[image, 0])
    return float(np.mean(errors))


@pytest.mark.parametrize("fine", ["", "a8-static"])
def test_every_pair_is_the_sum_of_its_steps(groups: dict[str, xr.Dataset], fine: str) -> None:
    options = {"protect_bits": 8} if fine else {}
    found = analyze("policy", groups, format="a4-static", max_first=9, max_last=7, **options)
    table = found["policy"]["predicted_error"]
    for first in range(10):
        for last in range(8):
            value = float(table.sel(first=first, last=last))
            if first + last > STEPS:
                assert np.isnan(value)
            else:
                expected = brute(groups, first, last, fine)
                np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-14)


def test_the_best_at_each_number_stands_beside_half_and_half(
    groups: dict[str, xr.Dataset],
) -> None:
    result = analyze("policy", groups, format="a4-static", protect=4)["policy"]
    assert result["protected"].values.tolist() == list(range(STEPS + 1))
    for count in range(STEPS + 1):
        row = result.sel(protected=count)
        pairs = [(f, count - f) for f in range(7) if 0 <= count - f <= 6]
        best = min(pairs, key=lambda pair: brute(groups, *pair))
        assert (int(row["best_first"]), int(row["best_last"])) == best
        half = (count - count // 2, count // 2)
        assert (int(row["half_first"]), int(row["half_last"])) == half
        np.testing.assert_allclose(float(row["half_error"]), brute(groups, *half), rtol=1e-9,
                                   atol=1e-14)  # fmt: skip
        assert float(row["best_error"]) <= float(row["half_error"]) + 1e-12
    chosen = result.attrs["chosen_first"], result.attrs["chosen_last"]
    assert sum(chosen) == 4
    assert result.attrs["basis"] == "sensitivity"
    alone = [brute(groups, s, STEPS - 1 - s) for s in range(STEPS)]
    np.testing.assert_allclose(result["step_error"].values, alone, rtol=1e-12)


def test_statistics_serve_where_nothing_was_measured(tmp_path: object) -> None:
    """The expected error by `error`, weighted by how far each step goes; no error of the latent."""
    from pathlib import Path

    from taqstore.testing import RunShape, make_store

    shape = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
    path = Path(str(tmp_path)) / "s.zarr"
    make_store(path, shape=shape)
    store = open_store(path)
    result = analyze("policy", store, format="a4-static", max_first=3, max_last=3)["policy"]
    assert result.attrs["basis"] == "static expected error"
    assert set(result["basis"].values) == {"static expected error"}
    assert not [name for name in result if str(name).endswith("_error")]
    error = analyze("error", store, bits=4, cuts="static")
    shares = np.concatenate(
        [10 ** (-data["sqnr"].transpose("step", "layer").values / 10) for data in error.values()],
        axis=1,
    )
    sigma = next(iter(error.values()))["sigma"].values.astype(np.float64)
    far = sigma - np.append(sigma[1:], 0)
    cost = shares.mean(axis=1) * far**2
    for first in range(4):
        for last in range(4):
            value = float(result["predicted_cost"].sel(first=first, last=last))
            if first + last > len(cost):
                assert np.isnan(value)
                continue
            expected = np.sqrt(cost[first : len(cost) - last].sum())
            np.testing.assert_allclose(value, expected, rtol=1e-10)
    with pytest.raises(MisuseError, match="no static cost of a4-grouped"):
        analyze("policy", store, format="a4-grouped")


def test_what_cannot_be_answered_is_told(groups: dict[str, xr.Dataset]) -> None:
    with pytest.raises(MisuseError, match="several formats"):
        analyze("policy", groups)
    with pytest.raises(MisuseError, match="no format of inputs"):
        analyze("policy", groups, format="rtn-w4")
    with pytest.raises(MisuseError, match="13 protected steps"):
        analyze("policy", groups, format="a4-static", protect=13)
    with pytest.raises(TaqError, match="no sensitivities of steps in a6-static"):
        analyze("policy", groups, format="a4-static", protect_bits=6)
    with pytest.raises(TaqError, match="neither sensitivities of steps nor activations"):
        analyze("policy", {}, format="a4-static")
    gone = groups["sensitivity/step/a4-static"].isel(target=[0, 1, 3, 4])
    with pytest.raises(TaqError, match="sensitivity of step 2 was not measured"):
        analyze("policy", {"sensitivity/step/a4-static": gone})


def test_last_steps_that_were_not_measured_are_missed() -> None:
    """A store that is partly complete has steps of the run beyond those that are there."""
    data = sensitivity([str(step) for step in range(5)], seed=1, inputs=True)
    groups = {"sensitivity/step/a4-static": data.assign_attrs(run={"steps": 5})}
    assert analyze("policy", groups, protect=2)["policy"].attrs["steps"] == 5
    groups = {"sensitivity/step/a4-static": data.assign_attrs(run={"steps": 7})}
    with pytest.raises(MissingError, match="sensitivity of step 5 was not measured"):
        analyze("policy", groups, protect=2)


def test_a_step_that_breaks_the_latent_is_named(groups: dict[str, xr.Dataset]) -> None:
    groups["sensitivity/step/a4-static"]["delta"][1, 4] = np.nan
    with pytest.raises(TaqError, match=r"quantized at step 4, the final latent is no number"):
        analyze("policy", groups, format="a4-static")
