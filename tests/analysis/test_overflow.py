"""Where values are no numbers first, and headroom, against closed forms and a plain loop."""

from __future__ import annotations

import json
from math import inf, log2, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from support.cli_runner import Runner
from support.planted import SHAPE, STEPS, fill, planted_store, put, tensors
from taqstore import open_store
from taqstore.analysis.overflow import overflow
from taqstore.errors import MissingError, MisuseError
from taqstore.query import analyze
from taqstore.testing import make_activations

LATE = STEPS[-1]
LIMITS = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38, "fp8_e4m3": 448.0,
          "fp8_e5m2": 57344.0}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plants = {(2, LATE, "mm1.img.mlp.fc2"): put(30000.0, 1)}
    return planted_store(tmp_path_factory.mktemp("sound") / "s.zarr", plants)


def seen(plants: Any, image: int, step: int, layer: str, site: str) -> np.ndarray:
    name = f"{layer}.{site.replace('qkv', 'q_proj')}"
    with np.errstate(over="ignore"):
        return tensors(image, step, plants)[name].astype(np.float16).astype(np.float64)


def cells(plants: Any, layer: str, site: str) -> np.ndarray:
    """Tensors (image, step, row, channel) of one input."""
    return np.array(
        [[seen(plants, image, step, layer, site) for step in STEPS] for image in range(3)]
    )


def test_headroom_is_that_of_the_raw_tensors(sound: Path) -> None:
    plants = {(2, LATE, "mm1.img.mlp.fc2"): put(30000.0, 1)}
    found = analyze("overflow", open_store(sound))["overflow"]
    least = dict.fromkeys(LIMITS, inf)
    for name, layer, site in zip(found["input"].values, found["layer"].values,
                                 found["site"].values, strict=True):  # fmt: skip
        absmax = abs(cells(plants, str(layer), str(site))).max()
        one = found.sel(input=name)
        assert float(one["absmax"]) == absmax
        for form, limit in LIMITS.items():
            headroom = one.sel(format=form)
            assert float(headroom["headroom"]) == limit / absmax
            assert float(headroom["headroom_bits"]) == pytest.approx(log2(limit / absmax))
            least[form] = min(least[form], limit / absmax)
    for form, headroom in least.items():
        assert float(found["least_headroom"].sel(format=form)) == headroom
    where = f"mm1.img.mlp.fc2 at step {LATE}, image 2"
    assert str(found["least_at"].sel(format="float16").item()) == where
    assert (found.attrs["failure"], found.attrs["first_nonfinite"]) == ("", "")
    assert "no non-finite values; least headroom: float16 2.183 (+1.1 bits)" in str(found.attrs)


def test_headroom_of_steps_and_images(sound: Path) -> None:
    plants = {(2, LATE, "mm1.img.mlp.fc2"): put(30000.0, 1)}
    opened = open_store(sound)
    found = analyze("overflow", opened, sites=["mlp.fc1", "mlp.fc2"])["overflow"]
    inputs = [(str(a), str(b)) for a, b in zip(found["layer"].values, found["site"].values,
                                               strict=True)]  # fmt: skip
    every = np.array([abs(cells(plants, *one)).max(axis=(2, 3)) for one in inputs])
    np.testing.assert_array_equal(found["step"], STEPS)
    np.testing.assert_array_equal(
        found["step_headroom"].sel(format="float16"), 65504 / every.max(axis=(0, 1))
    )
    np.testing.assert_array_equal(
        found["image_headroom"].sel(format="fp8_e4m3"), 448 / every.max(axis=(0, 2))
    )
    assert found["images"].values.tolist() == ["0", "1", "2"]
    one = analyze("overflow", opened, selection={"batch": "1", "layer": "mm0.img"})["overflow"]
    assert one["images"].values.tolist() == ["1"]
    assert set(one["layer"].values.tolist()) == {"mm0.img"}


def test_int8_sums_are_those_of_a_loop(sound: Path) -> None:
    found = analyze("overflow", open_store(sound), sites=["mlp.fc1"])["overflow"]
    limit = 2**31 - 1
    for name, layer in zip(found["input"].values, found["layer"].values, strict=True):
        x, one = cells({}, str(layer), "mlp.fc1"), found.sel(input=name)
        channels = x.shape[-1]
        worst = typical = 0.0
        for step in range(len(STEPS)):
            size = abs(x[:, step]).max() / 127
            for image in range(3):
                total = sum(min(round(abs(x[image, step, :, c]).max() / size), 127)
                            for c in range(channels))  # fmt: skip
                worst = max(worst, 127 * total)
                energy = (x[image, step] ** 2).sum(axis=1).mean()
                bound = 127 * sqrt(channels) * (sqrt(energy) / size + sqrt(channels) / 2)
                typical = max(typical, bound)
                # What a quantizer really makes of it, with the worst weights, stays below both.
                q = np.clip(np.rint(x[image, step] / size), -127, 127)
                signs = np.sign(q) * 127
                assert (q * signs).sum(axis=1).max() <= 127 * total
                assert np.sqrt(((q * signs).sum(axis=1) ** 2).mean()) <= bound
        assert float(one["headroom"].sel(format="int8")) == limit / worst
        assert float(one["rms_headroom"]) == pytest.approx(limit / typical, rel=1e-6)
        assert float(one["channel_headroom"]) == limit / (127 * 127 * channels)


def test_a_narrow_accumulator_names_the_inputs_outside(sound: Path) -> None:
    opened = open_store(sound)
    assert analyze("overflow", opened)["overflow"].attrs["outside_int8"] == ""
    narrow = analyze("overflow", opened, accumulator_bits=16, to=("int8",))["overflow"]
    outside = narrow.attrs["outside_int8"].split(", ")
    short = narrow["input"].values[(narrow["headroom"].sel(format="int8") < 1).values]
    assert outside == short.tolist()
    assert len(outside) > 0
    assert "headroom to int8" in narrow.attrs["failure"]


def test_the_first_is_the_first_in_the_order_of_the_run(tmp_path: Path) -> None:
    """By image, then step, then block, then as a block runs."""
    plants = {
        (2, STEPS[0], "mm0.img.mlp.fc1"): put(np.nan, 0),
        (1, LATE, "mm0.txt.attn.o_proj"): put(1e6, 0, 1),
        (1, LATE, "mm0.img.mlp.fc2"): put(-1e6, 3),
        (1, LATE, "mm1.img.attn.q_proj"): put(np.nan, 3),
    }
    found = analyze("overflow", open_store(planted_store(tmp_path / "s.zarr", plants)))["overflow"]
    first = f"1 -Inf in the input of mm0.img.mlp.fc2 at step {LATE}, image 1"
    assert found.attrs["first_nonfinite"] == first
    assert found.attrs["failure"].startswith(f"first non-finite: {first}")
    counts = found["nonfinite_count"].to_series()
    assert counts[counts > 0].to_dict() == {
        "mm0.img.mlp.fc1": 1, "mm0.img.mlp.fc2": 1, "mm0.txt.attn.o_proj": 2,
        "mm1.img.attn.qkv": 1,
    }  # fmt: skip
    broken = found.sel(input="mm0.img.mlp.fc2")
    assert str(broken["nonfinite_at"].item()) == f"step {LATE}, image 1"
    assert (broken["headroom"] == 0).all()
    assert (broken["headroom_bits"] == -inf).all()
    alone = found.sel(input="mm1.img.mlp.fc2")
    assert (alone["headroom"] > 1).all()


def test_inputs_are_in_the_order_the_model_runs(sound: Path) -> None:
    found = analyze("overflow", open_store(sound))["overflow"]["input"].values.tolist()
    assert found[:8] == [
        "mm0.img.attn.qkv", "mm0.txt.attn.qkv", "mm0.img.attn.o_proj", "mm0.img.mlp.fc1",
        "mm0.img.mlp.fc2", "mm0.txt.attn.o_proj", "mm0.txt.mlp.fc1", "mm0.txt.mlp.fc2",
    ]  # fmt: skip


def test_exit_codes(sound: Path, taq: Runner, tmp_path: Path) -> None:
    assert taq("analyze", "overflow", sound, "--fail").code == 0
    short = taq("analyze", "overflow", sound, "--fail", "--min-headroom", 4)
    assert short.code == 1
    said = "headroom to float16 2.183 (+1.1 bits) is below 4 in mm1.img.mlp.fc2 at step"
    assert said in short.err
    eight = taq("analyze", "overflow", sound, "--fail", "--to", "float16", "--to", "fp8_e4m3")
    assert eight.code == 1
    assert "headroom to fp8_e4m3 0.01493" in eight.err
    plants = {(0, LATE, "mm1.img.mlp.fc2"): fill(np.nan)}
    broken = planted_store(tmp_path / "b.zarr", plants)
    failed = taq("analyze", "overflow", broken, "--fail")
    assert failed.code == 1
    assert f"NaN in the input of mm1.img.mlp.fc2 at step {LATE}, image 0" in failed.err
    tables = json.loads(taq("analyze", "overflow", broken, "--json").out)["tables"]
    least = {row["format"]: row["least_headroom"] for row in tables[0]["rows"]}
    assert least["float16"] == 0
    assert taq("analyze", "overflow", broken).code == 0
    assert taq("analyze", "overflow", sound, "--to", "fp4").code == 2
    assert taq("analyze", "overflow", sound, "--accumulator-bits", 8).code == 2


def test_pooled_statistics_have_no_images(taq: Runner, tmp_path: Path) -> None:
    store = tmp_path / "p.zarr"
    assert taq("ingest", make_activations(tmp_path / "a"), store).code == 0
    found = analyze("overflow", open_store(store))["overflow"]
    assert "images" not in found.dims
    fc1 = open_store(store)["pooled/timestep_stats/mlp.fc1"]
    stored = fc1["tensor_absmax"].max("step").to_series()
    for layer, alpha in stored.items():
        one = found.sel(input=f"{layer}.mlp.fc1")
        assert float(one["headroom"].sel(format="float16")) == pytest.approx(65504 / alpha)
    assert np.isnan(found["rms_headroom"]).all()
    assert taq("analyze", "overflow", store, "-o", tmp_path / "o.nc").code == 0
    read = xr.load_dataset(tmp_path / "o.nc")
    np.testing.assert_array_equal(read["headroom"], found["headroom"])


def test_what_cannot_be_answered_is_refused(taq: Runner, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="overflow needs"):
        overflow({"activations/x": xr.Dataset({"step": ("step", [1]), "layer": ("layer", ["a"])})})
    with pytest.raises(MissingError, match="needs statistics"):
        overflow({})
    with pytest.raises(MisuseError, match="to 'fp4' is not known"):
        overflow({}, to=("fp4",))


def test_zeros_have_all_the_room(tmp_path: Path) -> None:
    plants = {(image, step, "mm0.img.mlp.fc1"): fill(0.0) for image in range(SHAPE.images)
              for step in STEPS}  # fmt: skip
    store = open_store(planted_store(tmp_path / "z.zarr", plants))
    one = analyze("overflow", store, sites=["mlp.fc1"], selection={"layer": "mm0.img"})
    found = one["overflow"]
    assert np.isinf(found["least_headroom"]).all()
    assert found.attrs["failure"] == ""
