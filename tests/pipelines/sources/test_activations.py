"""Per-step statistics: exact values in the promised dtypes, q/k/v once, bad steps alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.sources import Inexact, Options, Plan, plan, replan

from support.source_runs import (
    STAT_STEPS,
    activations_run,
    dump,
    edit_npz,
    layer_names,
    run,
)  # fmt: skip

GROUP = "pooled/timestep_stats"
ORDER = ["mm0.img", "mm0.txt", "mm1.img", "mm1.txt"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    activations_run(tmp_path / "activations")
    return tmp_path / "activations"


def one_plan(folder: Path, **options: Any) -> Plan:
    (got,) = plan(folder, options=Options(**options))
    return got


def stats(folder: Path, step: int = 3) -> Path:
    return folder / "timestep_stats" / f"step_{step}.npz"


def test_every_array_comes_back_exactly(tmp_path: Path) -> None:
    arrays, _ = activations_run(tmp_path / "a")
    written = run(one_plan(tmp_path / "a"))
    assert written.problems == []
    checked = 0
    for site in ("attn.o_proj", "mlp.fc1", "mlp.fc2"):
        template = written.templates[f"{GROUP}/{site}"]
        for s, step in enumerate(STAT_STEPS):
            for i, layer in enumerate(template.coords["layer"][1]):
                raw = f"{layer}.{site}".replace(".", "_")
                for key in ("avg_min", "avg_max", "shift", "hist_counts", "hist_edges"):
                    expected = arrays[step].get(f"{raw}__{key}")
                    if expected is not None:
                        stored = written.arrays[template.path, key][s, i]
                        assert np.array_equal(stored.astype(expected.dtype), expected)
                        checked += 1
    assert checked == 3 * (3 * 3 * 4 + 3)


def test_q_k_v_are_stored_once_where_equal_and_apart_where_not(tmp_path: Path) -> None:
    arrays, indexes = activations_run(tmp_path / "a")
    written = run(one_plan(tmp_path / "a"))
    template = written.templates[f"{GROUP}/attn.qkv"]
    assert list(template.coords["layer"][1]) == ORDER
    assert list(template.coords["projection"][1]) == ["q_proj", "k_proj", "v_proj"]
    dims = {array.name: array.dims for array in template.arrays}
    assert dims["avg_min"] == ("step", "layer", "channel")
    assert dims["hist_counts"] == ("step", "layer", "projection", "bin")
    assert dims["hist_edges"] == ("step", "layer", "edge")
    assert dims["tensor_min"] == ("step", "layer")
    assert dims["hist_p999"] == ("step", "layer", "projection")
    for s, step in enumerate(STAT_STEPS):
        for i, layer in enumerate(ORDER):
            for p, projection in enumerate(("q_proj", "k_proj", "v_proj")):
                name = f"{layer}.attn.{projection}"
                counts = arrays[step][name.replace(".", "_") + "__hist_counts"]
                assert np.array_equal(written.arrays[template.path, "hist_counts"][s, i, p], counts)
                value = written.arrays[template.path, "hist_p999"][s, i, p]
                assert value == indexes[step][name]["hist_p999"]


def test_one_differing_k_keeps_the_three_apart(folder: Path) -> None:
    key = "mm1_img_attn_k_proj__avg_min"
    edit_npz(stats(folder, 10), **{key: np.full(4, -7.0)})
    got = one_plan(folder)
    written = run(got)
    values = written.arrays[f"{GROUP}/attn.qkv", "avg_min"]
    assert values.shape == (3, 4, 3, 4)
    assert (values[2, 2, 1] == -7).all()
    assert (values[2, 2, 0] == values[2, 2, 2]).all()
    assert (values[2, 2, 0] != -7).all()


def test_dtypes_coordinates_and_attributes(folder: Path) -> None:
    template = {t.path: t for t in one_plan(folder).templates}[f"{GROUP}/mlp.fc2"]
    arrays = {a.name: a for a in template.arrays}
    assert arrays["avg_min"].dtype == "<f4"
    assert arrays["avg_min"].attrs["original_dtype"] == "float64"
    assert arrays["hist_counts"].dtype == "<u4"
    assert arrays["hist_counts"].attrs["original_dtype"] == "int64"
    assert arrays["hist_counts"].compress
    assert arrays["hist_edges"].dtype == "<f8"
    assert "original_dtype" not in arrays["hist_edges"].attrs
    assert list(template.coords["step"][1]) == list(STAT_STEPS)
    assert template.coords["sigma"][1].dtype == np.float32
    assert list(template.coords["stream"][1]) == ["img", "txt", "img"]
    assert list(template.coords["layer"][1]) == ["mm0.img", "mm0.txt", "mm1.img"]
    assert template.attrs["source_document"]["timestep_dir"] == "timestep_stats"
    assert (template.item_dims, dict(template.item_size)) == (("step",), {"step": 3})


def test_index_values_are_exact_and_absent_ones_nan(tmp_path: Path) -> None:
    _, indexes = activations_run(tmp_path / "a")
    written = run(one_plan(tmp_path / "a"))
    path = f"{GROUP}/mlp.fc2"
    for s, step in enumerate(STAT_STEPS):
        entry = indexes[step]["mm1.img.mlp.fc2"]
        for name in ("tensor_absmax", "tensor_min", "tensor_max", "shift_absmax", "hist_p999"):
            assert written.arrays[path, name][s, 2] == entry[name]
        assert written.arrays[path, "n_batches"][s, 2] == 3
        assert written.arrays[path, "has_shift"][s, 2]
    assert (f"{GROUP}/mlp.fc1", "shift_absmax") not in written.arrays
    assert not written.arrays[f"{GROUP}/mlp.fc1", "has_shift"].any()


def test_a_late_inexact_value_asks_for_a_wider_plan(folder: Path) -> None:
    """The plan looks at the first step; 0.1 in the last one is no float32 value."""
    edit_npz(stats(folder, 10), mm0_txt_mlp_fc2__avg_max=np.full(9, 0.1))
    got = one_plan(folder)
    with pytest.raises(Inexact) as caught:
        run(got)
    assert (caught.value.group, caught.value.variable) == (f"{GROUP}/mlp.fc2", "avg_max")
    widen = frozenset({(caught.value.group, caught.value.variable)})
    again = replan(got, options=Options(widen=widen))
    written = run(again)
    values = written.arrays[f"{GROUP}/mlp.fc2", "avg_max"]
    assert values.dtype == np.float64
    assert (values[2, 1] == 0.1).all()
    assert written.arrays[f"{GROUP}/mlp.fc2", "avg_min"].dtype == np.float32
    assert all(flags.all() for flags in written.flags.values())


def test_a_late_large_count_asks_for_a_wider_plan(folder: Path) -> None:
    counts = np.arange(8) + (1 << 33)
    edit_npz(stats(folder, 10), mm0_txt_mlp_fc1__hist_counts=counts)
    got = one_plan(folder)
    with pytest.raises(Inexact) as caught:
        run(got)
    widen = frozenset({(caught.value.group, caught.value.variable)})
    values = run(replan(got, options=Options(widen=widen))).arrays[
        f"{GROUP}/mlp.fc1", "hist_counts"
    ]
    assert values.dtype == np.uint64
    assert np.array_equal(values[2, 1], counts)


def test_shards_are_streamed_and_cover_every_layer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(one_plan(folder))
    monkeypatch.setattr(
        "taqstore.pipelines.sources.parts.pooled.rows_per_shard", lambda row, rows: 3
    )
    got = one_plan(folder)
    split = run(got)
    assert [len(unit.parts) for unit in got.units] == [1, 2, 1, 1]
    assert whole.arrays.keys() == split.arrays.keys()
    for key, values in whole.arrays.items():
        assert np.array_equal(values, split.arrays[key], equal_nan=values.dtype.kind == "f")


def test_widths_that_differ_within_a_site_become_sites(folder: Path) -> None:
    for step in STAT_STEPS:
        wide = {f"mm1_img_mlp_fc2__{k}": np.ones(5) for k in ("avg_min", "avg_max", "shift")}
        edit_npz(stats(folder, step), **wide)
    paths = {t.path: list(t.coords["layer"][1]) for t in one_plan(folder).templates}
    assert paths[f"{GROUP}/mlp.fc2.c5"] == ["mm1.img"]
    assert paths[f"{GROUP}/mlp.fc2.c9"] == ["mm0.img", "mm0.txt"]


def test_v1_extrema_get_their_true_names(tmp_path: Path) -> None:
    arrays, _ = activations_run(tmp_path / "a", schema="activation_stats_v1")
    written = run(one_plan(tmp_path / "a"))
    template = written.templates["pooled/activation_stats_v1/mlp.fc1"]
    declared = {a.name: a for a in template.arrays}
    assert declared["min"].attrs["source_name"] == "avg_min"
    assert not {"avg_min", "hist_counts", "shift"} & set(declared)
    assert written.arrays[template.path, "has_hist"].all()
    expected = arrays[3]["mm0_txt_mlp_fc1__avg_max"]
    assert np.array_equal(written.arrays[template.path, "max"][1, 1], expected)


def test_one_image_has_no_histograms(folder: Path) -> None:
    for step in STAT_STEPS:
        drop = tuple(
            f"{n.replace('.', '_')}__hist_{k}" for n in layer_names() for k in ("counts", "edges")
        )
        edit_npz(stats(folder, step), drop=drop)
        path = folder / "timestep_stats" / f"step_{step}_index.json"
        indexes = {
            n: {"n_batches": 1, "tensor_absmax": 1.0, "tensor_min": -1.0, "tensor_max": 1.0,
                "has_shift": n.endswith("fc2"), "has_hist": False} for n in layer_names()
        }  # fmt: skip
        dump(path, indexes)
    written = run(one_plan(folder))
    assert written.problems == []
    assert (f"{GROUP}/mlp.fc2", "shift") in written.arrays
    assert not any(name.startswith("hist") for _, name in written.arrays)


def test_foreign_spellings_are_resolved_and_remembered(folder: Path) -> None:
    for step in STAT_STEPS:
        path = folder / "timestep_stats" / f"step_{step}_index.json"
        text = path.read_text().replace(".img.", ".image_transformer_block.")
        path.write_text(text)
        with np.load(stats(folder, step)) as file:
            renamed = {k.replace("_img_", "_image_transformer_block_"): file[k] for k in file.files}
        np.savez(stats(folder, step), **renamed)
    got = one_plan(folder)
    assert run(got).problems == []
    template = {t.path: t for t in got.templates}[f"{GROUP}/mlp.fc1"]
    assert list(template.coords["layer"][1]) == ["mm0.img", "mm0.txt", "mm1.img"]
    assert template.attrs["source_layers"][0] == ["mm0.image_transformer_block.mlp.fc1"]
