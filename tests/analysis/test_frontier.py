"""The frontier against every allocation there is, and against sums written out."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import xarray as xr

from support.effects_store import scores, sensitivity
from taqstore.analysis.shared.effects import Effects
from taqstore.errors import MisuseError, TaqError
from taqstore.kinds.formats.weight_formats import FLOAT_BITS, Sizes
from taqstore.query import analyze

TARGETS = ("mm0.img.attn.q_proj", "mm0.img.attn.k_proj", "mm0.img.attn.v_proj",
           "mm0.txt.mlp.fc1", "mm1.img.mlp.fc2")  # fmt: skip
AMOUNT = [128 * 128, 128 * 128, 128 * 128, 512 * 128, 128 * 256]
FORMATS = ("mlx-w2-g64", "mlx-w4-g64", "mlx-w8-g32")
BITS = {"mlx-w2-g64": 2.5, "mlx-w4-g64": 4.5, "mlx-w8-g32": 9.0, "float": 16.0}


@pytest.fixture
def groups() -> dict[str, xr.Dataset]:
    found = {}
    for place, name in enumerate(FORMATS):
        found[f"sensitivity/linear/{name}"] = sensitivity(
            TARGETS, seed=place, amount=AMOUNT, size=0.4 / 4**place
        )
        found[f"scores/linear/{name}"] = scores(TARGETS, seed=50 + place, amount=AMOUNT)
    return found


def combined(groups: dict[str, xr.Dataset], choice: tuple[str, ...]) -> tuple[float, float]:
    """Root of the sum of squares, and of the squared length of the sum, by loops."""
    squares = vectors = 0.0
    norm = groups[f"sensitivity/linear/{FORMATS[0]}"]["latent_norm"].values[:, 0]
    for image in range(len(norm)):
        total = np.zeros((2, 3, 4))
        for place, name in enumerate(choice):
            if name == "float":
                continue
            delta = groups[f"sensitivity/linear/{name}"]["delta"].values[image, place]
            wide = delta.astype(np.float64)
            squares += (wide**2).sum() / norm[image] ** 2 / len(norm)
            total += wide
        vectors += (total**2).sum() / norm[image] ** 2 / len(norm)
    return float(np.sqrt(squares)), float(np.sqrt(vectors))


def average(choice: tuple[str, ...]) -> float:
    return sum(BITS[n] * a for n, a in zip(choice, AMOUNT, strict=True)) / sum(AMOUNT)


@pytest.mark.parametrize("budget", [2.5, 3.1, 4.5, 6.0, 11.0, 16.0])
def test_an_allocation_is_the_best_of_all(groups: dict[str, xr.Dataset], budget: float) -> None:
    every = [c for c in product(BITS, repeat=len(TARGETS)) if average(c) <= budget + 1e-9]
    best = min(every, key=lambda choice: combined(groups, choice)[0])
    result = analyze("frontier", groups, average=budget, budgets=[budget])["frontier"]
    assert tuple(result["allocated"].values) == best
    row = result.sel(budget=budget)
    squares, vectors = combined(groups, best)
    np.testing.assert_allclose(float(row["predicted_error"]), squares, rtol=1e-12)
    np.testing.assert_allclose(float(row["first_order_error"]), vectors, rtol=1e-12)
    np.testing.assert_allclose(float(row["average_bits"]), average(best), rtol=1e-12)
    assert int(row["kept_float"]) == best.count("float")
    assert set(np.atleast_1d(result["basis"].values)) == {"sensitivity"}


def test_uniform_formats_stand_beside(groups: dict[str, xr.Dataset]) -> None:
    result = analyze("frontier", groups)["frontier"]
    for name in FORMATS:
        one = result.sel(format=name)
        squares, vectors = combined(groups, (name,) * len(TARGETS))
        assert float(one["uniform_bits"]) == BITS[name]
        np.testing.assert_allclose(float(one["uniform_error"]), squares, rtol=1e-12)
        np.testing.assert_allclose(float(one["uniform_first_order"]), vectors, rtol=1e-12)
        # At its own bits the allocation is never predicted to be worse.
        assert float(result.sel(budget=BITS[name])["predicted_error"]) <= squares
    errors = result["predicted_error"].values
    assert (np.diff(errors) <= 0).all()
    assert "allocated" not in result


def test_a_static_score_is_marked_in_every_row(groups: dict[str, xr.Dataset]) -> None:
    for score, power in (("moment_error", ""), ("imatrix_relative", "imatrix_power")):
        result = analyze("frontier", groups, score=score, average=5.0)["frontier"]
        assert set(result["basis"].values) == {f"static {score}"}
        assert result.attrs["basis"] == f"static {score}"
        cost = {"float": np.zeros(len(TARGETS))}
        for name in FORMATS:
            data = groups[f"scores/linear/{name}"]
            own = data[f"{score.removesuffix('_relative')}_error" if power else score].values
            cost[name] = own / data[power].values if power else own
        every = [c for c in product(BITS, repeat=len(TARGETS)) if average(c) <= 5.0]
        total = {c: sum(cost[n][i] for i, n in enumerate(c)) for c in every}
        best = min(every, key=lambda choice: total[choice])
        assert tuple(result["allocated"].values) == best
        row = result.sel(budget=5.0)
        np.testing.assert_allclose(float(row["score_cost"]), total[best], rtol=1e-12)
        # What it does by sensitivities is told beside, in its own units.
        expected = combined(groups, best)[0]
        np.testing.assert_allclose(float(row["predicted_error"]), expected, rtol=1e-12)
        alone = {path: data for path, data in groups.items() if path.startswith("scores")}
        found = analyze("frontier", alone, score=score, average=5.0)["frontier"]
        assert tuple(found["allocated"].values) == best
        assert "predicted_error" not in found


def test_fused_projections_have_one_format(groups: dict[str, xr.Dataset]) -> None:
    for budget in (3.0, 4.4, 5.2, 7.0):
        every = [
            c for c in product(BITS, repeat=len(TARGETS))
            if average(c) <= budget + 1e-9 and len(set(c[:3])) == 1
        ]  # fmt: skip
        best = min(every, key=lambda choice: combined(groups, choice)[0])
        result = analyze("frontier", groups, average=budget, fused=True)["frontier"]
        assert tuple(result["allocated"].values) == best


@pytest.mark.parametrize("keep_float", [True, False])
def test_fused_projections_have_a_format_that_all_were_measured_in(
    groups: dict[str, xr.Dataset], keep_float: bool
) -> None:
    """The least budget is that of units, not of linears each on its own."""
    path = f"sensitivity/linear/{FORMATS[0]}"
    groups[path] = groups[path].isel(target=slice(1, None))
    options = {"fused": True, "keep_float": keep_float}
    rows = analyze("frontier", groups, **options)["frontier"]
    least = float(rows["budget"][0])
    every = [
        average(c) for c in product(BITS, repeat=len(TARGETS))
        if len(set(c[:3])) == 1 and c[0] != FORMATS[0]
    ]  # fmt: skip
    assert least == pytest.approx(min(every), abs=1e-12)
    assert (rows["average_bits"] <= rows["budget"] + 1e-9).all()
    with pytest.raises(MisuseError, match="; give ") as told:
        analyze("frontier", groups, average=least - 0.01, **options)
    enough = float(str(told.value).split("give ")[1].split()[0])
    assert least <= enough < least + 2e-4
    assert analyze("frontier", groups, average=enough, **options)


def test_fused_projections_without_a_format_in_common(groups: dict[str, xr.Dataset]) -> None:
    for place, name in enumerate(FORMATS):
        path = f"sensitivity/linear/{name}"
        kept = [t for t in range(len(TARGETS)) if t >= 3 or t == place]
        groups[path] = groups[path].isel(target=kept)
    options = {"fused": True, "formats": FORMATS[:2]}
    assert analyze("frontier", groups, **options)["frontier"]["kept_float"].min() >= 2
    with pytest.raises(MisuseError, match=r"attn.qkv have no format in common; leave --fused"):
        analyze("frontier", groups, keep_float=False, **options)


def test_a_linear_that_lacks_a_format_never_gets_it(groups: dict[str, xr.Dataset]) -> None:
    path = f"sensitivity/linear/{FORMATS[1]}"
    groups[path] = groups[path].isel(target=[0, 2])
    result = analyze("frontier", groups, average=5.0)["frontier"]
    allocated = dict(zip(result["target"].values, result["allocated"].values, strict=True))
    assert {t for t, f in allocated.items() if f == FORMATS[1]} <= {TARGETS[0], TARGETS[2]}
    only = analyze("frontier", groups, formats=[FORMATS[1]], average=16.0)["frontier"]
    assert set(only["target"].values) == {TARGETS[0], TARGETS[2]}


def test_formats_of_inputs_are_averaged_over_channels() -> None:
    channels = [128, 128, 128, 128, 512]
    groups = {
        f"sensitivity/linear/{name}": sensitivity(
            TARGETS, seed=place, amount=channels, inputs=True, size=0.4 / 4**place
        )
        for place, name in enumerate(("a4-static", "a8-static"))
    }
    result = analyze("frontier", groups, average=6.0, keep_float=False)["frontier"]
    bits = np.array([4.0 if f == "a4-static" else 8.0 for f in result["allocated"].values])
    assert (bits * channels).sum() / sum(channels) <= 6.0
    assert set(np.unique(bits)) == {4.0, 8.0}
    assert result.attrs["bits_counted"] == "of channels of inputs"
    groups["sensitivity/linear/rtn-w4"] = sensitivity(TARGETS, seed=9)
    with pytest.raises(MisuseError, match="of weights and a4-static of inputs"):
        analyze("frontier", groups, formats=["rtn-w4", "a4-static"])


def test_bits_are_those_of_packed_bytes() -> None:
    """A step for a whole output is counted where the store says how many inputs that has."""
    activations = xr.Dataset(coords={"layer": ["mm0.img"], "channel": np.arange(128)})
    weights = {"mm0.img.mlp.fc1": 512 * 128}
    known = Sizes({"activations/mlp.fc1": activations}, weights)
    blind = Sizes({}, weights)
    target = "mm0.img.mlp.fc1"
    assert known.bits(target, "rtn-w3") == (512 * 128 * 3 + 512 * 32, True)
    assert blind.bits(target, "rtn-w3") == (512 * 128 * 3, False)
    for sizes in (known, blind):
        assert sizes.bits(target, "rtn-w3-g32") == (512 * 128 * 4, True)
        assert sizes.bits(target, "mlx") == (512 * 128 * 4.5, True)
        assert sizes.bits(target, "float") == (512 * 128 * FLOAT_BITS, True)
    # ComfyUI's: a float8 scale for 16 inputs and a float32 one for an output.
    assert known.bits(target, "comfy") == (512 * 128 * 4 + 512 * 8 * 8 + 512 * 32, True)
    with pytest.raises(TaqError, match="no weight set of the store"):
        known.bits(target, "gptq")


def test_what_cannot_be_answered_is_told(groups: dict[str, xr.Dataset]) -> None:
    with pytest.raises(MisuseError, match="2 bits is less than"):
        analyze("frontier", groups, average=2.0)
    with pytest.raises(TaqError, match="no sensitivities of linears of rtn"):
        analyze("frontier", groups, formats=["rtn"])
    with pytest.raises(TaqError, match="no sensitivities of linears"):
        analyze("frontier", {})
    with pytest.raises(TaqError, match="no static scores of linears"):
        analyze("frontier", {}, score="moment_error")
    other = groups[f"sensitivity/linear/{FORMATS[0]}"]
    other = other.assign_coords(seed=("image", other["seed"].values + 100))
    with pytest.raises(TaqError, match="no image in common"):
        analyze("frontier", {**groups, f"sensitivity/linear/{FORMATS[0]}": other})


def test_a_format_that_breaks_a_linear_is_never_given_and_told(
    groups: dict[str, xr.Dataset],
) -> None:
    path = f"sensitivity/linear/{FORMATS[0]}"
    broken = groups[path].copy(deep=True)
    broken["latent_error"][1, 3] = np.nan
    broken["delta"][1, 3] = np.nan
    sound = analyze("frontier", groups, average=5.0)["frontier"]
    groups[path] = broken
    result = analyze("frontier", groups, average=5.0)["frontier"]
    assert result["allocated"].values[3] != FORMATS[0]
    assert result.attrs["note"].startswith(f"{TARGETS[3]} is not given {FORMATS[0]}: its final")
    assert not sound.attrs["note"]
    assert np.isfinite(result["predicted_error"]).all()
    assert np.isfinite(result["first_order_error"]).all()
    # Uniform rows leave what cannot have the format as it is.
    assert np.isfinite(result["uniform_error"]).all()
    direct = Effects.of({FORMATS[0]: broken})
    assert np.isinf(direct.together(np.zeros((1, len(TARGETS)), np.int64))[0, 1])
    without = np.array([[0, 0, 0, -1, 0]])
    whole = Effects.of({FORMATS[0]: broken.fillna(0.0)})
    np.testing.assert_array_equal(direct.together(without), whole.together(without))
