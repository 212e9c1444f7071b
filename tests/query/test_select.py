"""Selection and reduction against plain NumPy indexing and arithmetic."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from support.statistics_sample import STEPS, make_statistics, raise_if_computed
from taqstore.errors import MissingError, TaqError
from taqstore.query.select import reduce, select


@pytest.fixture
def statistics() -> xr.Dataset:
    return make_statistics()


def make_observations() -> xr.Dataset:
    """Batches of one to two images; empty slots hold -1."""
    values = np.arange(3 * 2 * 2, dtype=np.float32).reshape(3, 2, 2)
    coords = {"image": (("batch", "slot"), np.array([[4, 7], [9, -1], [7, 11]]))}
    return xr.Dataset({"min": (("batch", "step", "layer"), values)}, coords)


# -- select -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("3", [3]),
        ("0:9", [0, 3, 6]),  # the end is left out
        ("0:10:6", [0, 6]),
        ("3::6", [3, 9]),
        ("::2", [0, 6]),
        (":", [0, 3, 6, 9]),
        ("4:7", [6]),  # labels, not positions
        ("9,0", [0, 9]),  # order is the dataset's
        ("0:4, 9", [0, 3, 9]),
    ],
)
def test_step_is_a_half_open_range_of_labels(
    statistics: xr.Dataset, text: str, kept: list[int]
) -> None:
    selected = select(statistics, step=text)
    positions = [STEPS.tolist().index(step) for step in kept]
    assert selected["step"].values.tolist() == kept
    np.testing.assert_array_equal(
        selected["avg_min"].values, statistics["avg_min"].values[positions]
    )


def test_channels_without_labels_count_from_zero(statistics: xr.Dataset) -> None:
    selected = select(statistics, channel="2:7:2")
    expected = statistics["avg_min"].values[..., [2, 4, 6]]
    np.testing.assert_array_equal(selected["avg_min"].values, expected)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0.6:0.9", [3, 6]),
        ("0.60215056:0.85769236", [3, 6]),  # both ends, typed as printed
        (":0.61", [6, 9]),
        ("0.7:", [0, 3]),
    ],
)
def test_sigma_is_a_closed_interval(statistics: xr.Dataset, text: str, kept: list[int]) -> None:
    assert select(statistics, sigma=text)["step"].values.tolist() == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mm*.img", ["mm0.img", "mm1.img", "mm10.img"]),
        ("mm1.*", ["mm1.img"]),
        ("mm_00_img", ["mm0.img"]),
        ("mm0_txt_mlp_fc2,uni0", ["mm0.txt", "uni0"]),
        ("mm[01].img", ["mm0.img", "mm1.img"]),
    ],
)
def test_layer_takes_globs_and_spellings(
    statistics: xr.Dataset, text: str, kept: list[str]
) -> None:
    assert select(statistics, layer=text)["layer"].values.tolist() == kept


def test_a_spelling_with_a_projection_selects_it(statistics: xr.Dataset) -> None:
    selected = select(statistics, layer="mm1.img.attn.k_proj", site="attn.qkv")
    expected = statistics["hist_p999"].values[:, [2]][..., [1]]
    np.testing.assert_array_equal(selected["hist_p999"].values, expected)


def test_a_spelling_of_another_site_is_refused(statistics: xr.Dataset) -> None:
    assert select(statistics, layer="mm_00_img", site="mlp.fc2.c192").sizes["layer"] == 1
    with pytest.raises(MissingError, match=r"input of mlp\.fc2, not of attn\.qkv.*like mm0\.img"):
        select(statistics, layer="mm_00_img", site="attn.qkv")


def test_stream_and_block_are_globs(statistics: xr.Dataset) -> None:
    assert select(statistics, stream="txt,uni")["layer"].values.tolist() == ["mm0.txt", "uni0"]
    assert select(statistics, block="mm0")["layer"].values.tolist() == ["mm0.img", "mm0.txt"]
    assert select(statistics, block="mm1*")["layer"].values.tolist() == ["mm1.img", "mm10.img"]


@pytest.mark.parametrize(("text", "kept"), [("mm1", [1]), ("0:2", [0, 1]), ("uni0,2", [0, 2])])
def test_block_selects_boundaries_of_residual_streams(text: str, kept: list[int]) -> None:
    streams = xr.Dataset({"x": (("boundary", "token"), np.eye(3))}, {"boundary": [0, 1, 2]})
    np.testing.assert_array_equal(select(streams, block=text)["x"].values, np.eye(3)[kept])


def test_image_keeps_batches_that_hold_it_and_never_an_empty_slot() -> None:
    observed = make_observations()
    assert select(observed, image="7")["min"].values[:, 0, 0].tolist() == [0, 8]
    assert select(observed, image=":5")["min"].values[:, 0, 0].tolist() == [0]
    with pytest.raises(MissingError, match="nothing matches --image -1"):
        select(observed, image="-1")


def test_options_combine(statistics: xr.Dataset) -> None:
    selected = select(statistics, layer="*.img", step="3:", channel="1", sigma="0.1:1")
    expected = statistics["avg_max"].values[np.ix_([1, 2], [0, 2, 3], [1])]
    np.testing.assert_array_equal(selected["avg_max"].values, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": "1"}, r"nothing matches --step 1; there is 0, 3, 6, 9"),
        ({"sigma": "2:3"}, r"nothing matches --sigma 2:3; there is 1\.0, 0\.857"),
        ({"layer": "mm7.img"}, r"nothing matches --layer mm7\.img; did you mean mm1\.img\?"),
        ({"layer": "nonsense"}, r"layer name 'nonsense' is not known"),
        (
            {"stream": "img2"},
            r"nothing matches --stream img2; did you mean img\? There is img, txt",
        ),
        ({"batch": "0"}, r"no dimension 'batch' here; there is step"),
        ({"image": "0"}, r"no dimension 'image' here"),
        ({"channel": "7:"}, r"nothing matches --channel 7:; there is 0, 1, 2, 3, 4, 5, 6"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    statistics: xr.Dataset, options: dict[str, str], message: str
) -> None:
    with pytest.raises(MissingError, match=message):
        select(statistics, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"step": "a"},
        {"step": "1:2:3:4"},
        {"step": ""},
        {"step": "0:9:0"},
        {"step": "0:9:-1"},
        {"step": "1,,2"},
        {"sigma": "0.5"},
        {"sigma": "a:b"},
        {"layer": "mm0.img,"},
    ],
)
def test_unreadable_options_are_one_line(statistics: xr.Dataset, options: dict[str, str]) -> None:
    with pytest.raises(TaqError) as caught:
        select(statistics, **options)
    assert "\n" not in str(caught.value)


def test_select_and_reduce_are_lazy(statistics: xr.Dataset) -> None:
    with dask.config.set(scheduler=raise_if_computed):
        selected = select(statistics, layer="mm*", step="3:", channel="1:6")
        reduced = reduce(selected, "channel=p99", "step=mean", "layer=max")
    assert reduced["avg_min"].chunks is not None
    assert reduced["avg_min"].shape == ()


# -- reduce -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("name", ["avg_min", "avg_max"])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("max", lambda x: x.max(1)),
        ("min", lambda x: x.min(1)),
        ("mean", lambda x: x.astype("f8").mean(1)),
        ("std", lambda x: np.sqrt(((x - x.astype("f8").mean(1, keepdims=True)) ** 2).mean(1))),
        ("median", lambda x: np.sort(x.astype("f8"), 1)[:, 2]),
        ("p0", lambda x: x.min(1)),
        ("p37.5", lambda x: np.sort(x.astype("f8"), 1)[:, 1:3].mean(1)),  # rank 1.5 of 0..4
    ],
)
def test_reductions_equal_numpy(how: str, expected: Any, name: str, chunked: bool) -> None:
    dataset = make_statistics(chunked)
    result = reduce(dataset, f"layer={how}")[name]
    want = expected(dataset[name].values)
    assert result.dims == ("step", "channel")
    if how in ("max", "min"):
        assert result.dtype == dataset[name].dtype
        np.testing.assert_array_equal(result.values, want)
    else:
        assert result.dtype == np.float64
        np.testing.assert_allclose(result.values, want, rtol=1e-14, atol=0)


def test_float16_means_do_not_overflow() -> None:
    dataset = xr.Dataset({"x": ("channel", np.full(4000, 60000, np.float16))}).chunk(channel=1000)
    assert float(reduce(dataset, "channel=mean")["x"]) == 60_000  # which float16 has exactly
    assert float(reduce(dataset, "channel=std")["x"]) == 0


def test_reductions_apply_in_order() -> None:
    x = np.array([[1.0, 5.0], [4.0, 2.0]])
    dataset = xr.Dataset({"x": (("step", "layer"), x)})
    assert reduce(dataset, "step=max", "layer=min")["x"].item() == 4
    assert reduce(dataset, "layer=min", "step=max")["x"].item() == 2


def test_other_variables_pass_and_text_is_dropped_with_a_note(statistics: xr.Dataset) -> None:
    by_channel = reduce(statistics, "channel=max")
    xr.testing.assert_identical(by_channel["n_batches"], statistics["n_batches"])
    assert "dropped" not in by_channel.attrs
    by_layer = reduce(statistics, "layer=max", "step=mean")
    assert list(by_layer.data_vars) == ["avg_min", "avg_max", "n_batches", "has_shift", "hist_p999"]
    assert by_layer.attrs["dropped"] == "note"
    assert by_layer.attrs["reduced"] == "layer=max, step=mean"
    assert by_layer.attrs["kind"] == "pooled"
    assert "block" not in by_layer.coords
    assert "original_dtype" not in by_layer["avg_min"].attrs
    assert statistics["avg_min"].attrs == {"original_dtype": "float64"}
    share = statistics["has_shift"].values.any(1).mean()
    assert float(by_layer["has_shift"]) == share


def test_missing_values_come_through_unless_left_out() -> None:
    dataset = xr.Dataset({"x": ("step", [1.0, np.nan, 3.0, 8.0])})
    for how, value in (("max", 8), ("mean", 4), ("median", 3), ("std", np.std([1, 3, 8]))):
        assert np.isnan(reduce(dataset, f"step={how}")["x"].item())
        skipped = reduce(dataset, f"step={how}", skipna=True)["x"].item()
        assert skipped == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("step", "no '='"),
        ("step=sum", "reduction 'sum' is not known"),
        ("step=p101", "is not known"),
        ("step=p-1", "is not known"),
        ("image=max", r"no variable has dimension 'image'; there is step, layer"),
    ],
)
def test_bad_reductions_are_refused(statistics: xr.Dataset, spec: str, message: str) -> None:
    with pytest.raises(TaqError, match=message):
        reduce(statistics, spec)
