"""Damaged or foreign statistics: the bad step or document is named, everything else is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.sources import Plan, plan

from support.source_runs import STAT_STEPS, activations_run, dump, edit_npz, one_line, run
from taqstore.errors import SourceError

GROUP = "pooled/timestep_stats"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    activations_run(tmp_path / "activations")
    return tmp_path / "activations"


def one_plan(folder: Path) -> Plan:
    (got,) = plan(folder)
    return got


def stats(folder: Path, step: int = 3) -> Path:
    return folder / "timestep_stats" / f"step_{step}.npz"


def index(folder: Path, change: Callable[[dict[str, Any]], object], step: int = 3) -> None:
    path = folder / "timestep_stats" / f"step_{step}_index.json"
    document = json.loads(path.read_text())
    change(document)
    dump(path, document)


NAME = "mm0.txt.mlp.fc1"
BAD_STEP: dict[str, tuple[Callable[[Path], object], str]] = {
    "no npz": (lambda f: stats(f).unlink(), "step_3.npz: cannot be read"),
    "half npz": (lambda f: stats(f).write_bytes(stats(f).read_bytes()[:-40]), "write it again"),
    "no index": (
        lambda f: (f / "timestep_stats" / "step_3_index.json").unlink(),
        "step_3_index.json: cannot be read",
    ),
    "broken index": (
        lambda f: (f / "timestep_stats" / "step_3_index.json").write_text('{"a":'),
        "not valid JSON",
    ),
    "layer missing": (lambda f: index(f, lambda d: d.pop(NAME)), "mm0_txt_mlp_fc1"),
    "array missing": (
        lambda f: edit_npz(stats(f), drop=("mm0_txt_mlp_fc1__avg_min",)),
        "mm0_txt_mlp_fc1__avg_min: missing",
    ),
    "NaN in index": (
        lambda f: index(f, lambda d: d[NAME].update(tensor_min=float("nan"))),
        "not valid JSON",
    ),
    "text in index": (
        lambda f: index(f, lambda d: d[NAME].update(tensor_min="1")),
        "no key 'tensor_min' with a value of type float",
    ),
}


@pytest.mark.parametrize("name", BAD_STEP)
def test_a_bad_step_is_refused_in_every_site_and_the_others_kept(folder: Path, name: str) -> None:
    edit, says = BAD_STEP[name]
    edit(folder)
    written = run(one_plan(folder))
    assert {one_line(text) for text in written.problems} == set(written.problems[:1])
    assert says in written.problems[0]
    for path, flags in written.flags.items():
        assert list(flags) == [True, False, True], path
    values = written.arrays[f"{GROUP}/mlp.fc1", "avg_min"]
    assert np.isnan(values[1]).all()
    assert np.isfinite(values[[0, 2]]).all()


BAD_ARRAY = {
    "NaN": (np.array([0, np.nan, 0, 0]), "NaN or Inf"),
    "shape": (np.zeros(5), r"is not float64 (4,) (found float64 (5,))"),
    "dtype": (np.full(4, "a"), "is not float64"),
    "pickled": (np.array([{}], dtype=object), "mm0_txt_mlp_fc1__avg_min"),
}


@pytest.mark.parametrize("name", BAD_ARRAY)
def test_a_bad_array_is_refused_in_its_site(folder: Path, name: str) -> None:
    values, says = BAD_ARRAY[name]
    edit_npz(stats(folder), mm0_txt_mlp_fc1__avg_min=values)
    written = run(one_plan(folder))
    (text,) = written.problems
    assert says in one_line(text)
    assert "step_3.npz: mm0_txt_mlp_fc1__avg_min" in text
    assert list(written.flags[f"{GROUP}/mlp.fc1"]) == [True, False, True]
    assert written.flags[f"{GROUP}/mlp.fc2"].all()


def test_a_negative_count_is_refused(folder: Path) -> None:
    edit_npz(stats(folder), mm0_txt_mlp_fc1__hist_counts=np.arange(8) - 1)
    (text,) = run(one_plan(folder)).problems
    assert "negative count" in one_line(text)


def test_a_step_that_is_not_listed_is_said(folder: Path) -> None:
    stats(folder, 7).write_bytes(stats(folder, 3).read_bytes())
    (text,) = run(one_plan(folder)).problems
    assert "step_7.npz: not in step_keys" in one_line(text)


def test_arrays_of_later_variants_are_named_in_a_note(folder: Path) -> None:
    edit_npz(stats(folder), mm0_txt_mlp_fc1__token_absmax=np.zeros(3))
    got = one_plan(folder)
    assert got.notes == ("not stored: token_absmax",)
    assert run(got).problems == []


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"format": "per_timestep_npz_v3"}, "unknown format (found 'per_timestep_npz_v3')"),
        (
            {
                "step_keys": ["0"],
                "sigma_map": {},
                "num_prompts": 3,
                "num_steps": 1,
                "num_layers": 9,
            },
            "statistics of layer outputs",
        ),
        ({}, "unknown format"),
        ({"format": "per_timestep_npz_v2", "step_keys": []}, "not distinct step indices"),
        ({"format": "per_timestep_npz_v2", "step_keys": ["../0"]}, "not distinct step indices"),
        ({"format": "per_timestep_npz_v2", "step_keys": ["0", "0"]}, "not distinct step indices"),
        ({"format": "per_timestep_npz_v2", "step_keys": ["0"]}, "no key 'sigma_map'"),
        (
            {"format": "per_timestep_npz_v2", "step_keys": ["0"], "sigma_map": {}},
            "no key '0' with a value of type float",
        ),
    ],
)
def test_documents_that_cannot_be_used(folder: Path, document: dict, says: str) -> None:
    dump(folder / "layer_statistics.json", document)
    with pytest.raises(SourceError) as caught:
        plan(folder)
    assert says in one_line(str(caught.value))


def test_an_unknown_layer_name_is_refused_by_name(folder: Path) -> None:
    for step in STAT_STEPS:
        path = folder / "timestep_stats" / f"step_{step}_index.json"
        dump(path, {"mm0.img.attn.w_proj": {"n_batches": 1, "tensor_absmax": 1.0,
                                            "tensor_min": 0.0, "tensor_max": 1.0}})  # fmt: skip
        raw = "mm0_img_attn_w_proj"
        np.savez(
            stats(folder, step), **{f"{raw}__avg_min": np.zeros(2), f"{raw}__avg_max": np.ones(2)}
        )
    with pytest.raises(SourceError, match=r"mm0\.img\.attn\.w_proj") as caught:
        plan(folder)
    one_line(str(caught.value))
