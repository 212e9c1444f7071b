"""Block caches: each boundary once after proof, both sides where they differ, bad samples alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.sources import Plan, plan

from support.source_runs import (
    BLOCKS,
    CACHE_STEPS,
    block_cache,
    cache_metadata,
    dump,
    edit_npz,
    one_line,
    run,
)  # fmt: skip
from taqstore.errors import SourceError

IDS = (2, 7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    block_cache(tmp_path / "adaround_cache")
    return tmp_path / "adaround_cache"


def sample(folder: Path, image: int = 7, step: int = 5) -> Path:
    return folder / "samples" / f"{image:04d}_{step:03d}.npz"


def one_plan(folder: Path) -> Plan:
    (got,) = plan(folder)
    return got


def test_every_boundary_comes_back_once(tmp_path: Path) -> None:
    truth = block_cache(tmp_path / "c")
    got = one_plan(tmp_path / "c")
    written = run(got)
    assert written.problems == []
    sizes = {t.path: t.sizes["boundary"] for t in got.templates}
    assert sizes == {"blocks/img": BLOCKS + 1, "blocks/txt": BLOCKS}
    for stream in ("img", "txt"):
        x = written.arrays[f"blocks/{stream}", "x"]
        assert x.dtype == np.float32
        for i, image in enumerate(IDS):
            for s, step in enumerate(CACHE_STEPS):
                for b, expected in enumerate(truth[stream, image, step]):
                    assert np.array_equal(x[i, s, b], expected[:, :, 0].astype(np.float32))
        assert written.flags[f"blocks/{stream}"].all()


def test_coordinates_and_attributes(folder: Path) -> None:
    img, txt = one_plan(folder).templates
    assert list(img.coords["image"][1]) == list(IDS)
    assert list(img.coords["step"][1]) == list(CACHE_STEPS)
    assert img.coords["timestep"][1].dtype == np.float16
    assert list(img.coords["timestep"][1]) == [1000, 500]
    assert list(img.coords["dtype"][1]) == ["float16", "float32", "float32", "float32"]
    assert list(txt.coords["dtype"][1]) == ["float32"] * 3
    assert "sigma" not in img.coords
    assert img.attrs["singleton_axis"] == 2
    assert img.attrs["source_metadata"]["calib_dir"] == "calibration_data"
    assert "samples" not in img.attrs["source_metadata"]
    assert [a.name for a in img.arrays] == ["x"]


def test_where_an_output_is_not_the_next_input_both_are_kept(folder: Path) -> None:
    other = np.random.default_rng(5).normal(size=(2, 6, 1, 4)).astype(np.float32)
    edit_npz(sample(folder), mm1__out0=other)
    got = one_plan(folder)
    written = run(got)
    kept = written.arrays["blocks/img", "output_kept"]
    assert kept.sum() == 1
    assert kept[1, 1, 1]
    output = written.arrays["blocks/img", "output"]
    assert np.array_equal(output[1, 1, 1], other[:, :, 0])
    assert np.isnan(np.delete(output.reshape(-1, 2, 6, 4), 1 * 8 + 1 * 4 + 1, axis=0)).all()
    assert len([s for s in written.shards if s[1] == "output"]) == 1
    assert any("mm1__out0" in note for note in got.notes)
    assert ("blocks/txt", "output") not in written.arrays


def test_an_output_of_another_dtype_is_not_the_same(folder: Path) -> None:
    with np.load(sample(folder)) as file:
        narrow = file["mm1__arg0"].astype(np.float16)
    for image in IDS:
        for step in CACHE_STEPS:
            edit_npz(sample(folder, image, step), mm0__out0=narrow)
    got = one_plan(folder)
    written = run(got)
    assert list(written.arrays["blocks/img", "output_kept"].reshape(4, -1).sum(axis=0)) == [
        4,
        0,
        0,
        0,
    ]
    output = next(a for a in got.templates[0].arrays if a.name == "output")
    assert output.attrs["original_dtype"] == {"0": "float16"}


def test_sigma_pooled_and_unified_blocks(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    folder = tmp_path / "c"
    (folder / "samples").mkdir(parents=True)
    (folder / "pooled").mkdir()
    x = [rng.normal(size=(2, 5, 1, 3)).astype(np.float16) for _ in range(3)]
    pooled = rng.normal(size=(2, 6)).astype(np.float16)
    t = np.full(2, 7, np.float16)
    arrays = {"uni0__arg0": x[0], "uni0__out0": x[1], "uni1__arg0": x[1], "uni1__out0": x[2]}
    np.savez(
        folder / "samples" / "0003_002.npz",
        uni0__arg1=t, uni1__arg1=t, __sigma__=np.array([0.3], np.float32), **arrays,
    )  # fmt: skip
    np.savez(folder / "pooled" / "0003.npz", pooled=pooled)
    entry = {"img_idx": 3, "step_idx": 2, "file": "0003_002.npz"}
    document = {"format": "adaround_cache_v1", "block_names": ["uni0", "uni1"], "samples": [entry]}
    dump(folder / "metadata.json", document)
    got = one_plan(folder)
    written = run(got)
    assert [t.path for t in got.templates] == ["blocks/uni", "blocks/pooled"]
    assert got.templates[0].coords["sigma"][1][0] == np.float32(0.3)
    stored = written.arrays["blocks/uni", "x"]
    assert stored.dtype == np.float16
    assert all(np.array_equal(stored[0, 0, b], x[b][:, :, 0]) for b in range(3))
    assert np.array_equal(written.arrays["blocks/pooled", "pooled_conditioning"][0], pooled)
    assert written.problems == []


SHAPE = np.zeros((2, 6, 1, 5), np.float32)
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: p.unlink(), "metadata.json lists it"),
    "half-written": (lambda p: p.write_bytes(p.read_bytes()[:99]), "write it again"),
    "missing key": (lambda p: edit_npz(p, drop=("mm1__arg1",)), "mm1__arg1: missing"),
    "extra key": (lambda p: edit_npz(p, mm9__arg0=SHAPE), "mm9__arg0: not a key"),
    "shape": (lambda p: edit_npz(p, mm1__arg0=SHAPE, mm0__out0=SHAPE), "is not float32"),
    "dtype": (lambda p: edit_npz(p, mm0__arg0=np.full((2, 6, 1, 4), 0.1)), "numbers that float16"),
    "NaN": (
        lambda p: edit_npz(p, mm0__arg1=np.full((2, 3, 1, 4), np.nan, np.float32)),
        "mm0__arg1: NaN or Inf",
    ),
    "timestep": (lambda p: edit_npz(p, mm2__arg2=np.full(2, 3, np.float16)), "timestep is not"),
    "rows": (lambda p: edit_npz(p, mm0__arg2=np.array([500, 3], np.float16)), "timestep is not"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sample_is_refused_alone(folder: Path, name: str) -> None:
    edit, says = BAD[name]
    edit(sample(folder))
    got = one_plan(folder)
    written = run(got)
    assert any(says in one_line(text) for text in written.problems)
    assert all("0007_005" in text for text in written.problems)
    for stream in ("img", "txt"):
        assert written.flags[f"blocks/{stream}"].tolist() == [[True, True], [True, False]]


def test_an_unlisted_sample_is_said_and_left_out(folder: Path) -> None:
    document = cache_metadata(IDS)
    document["samples"].pop()
    dump(folder / "metadata.json", document)
    got = one_plan(folder)
    written = run(got)
    assert [("0007_005.npz" in t and "not listed" in t) for t in written.problems] == [True]
    assert not written.flags["blocks/img"][1, 1]
    assert got.templates[0].attrs["source_metadata"]["samples"] == document["samples"]


@pytest.mark.parametrize("name", ["../../etc/x.npz", "0002_000.npz", "/abs.npz"])
def test_a_listed_file_name_is_never_followed(folder: Path, name: str) -> None:
    document = cache_metadata(IDS)
    document["samples"][-1]["file"] = name
    dump(folder / "metadata.json", document)
    written = run(one_plan(folder))
    assert any("file is not 0007_005.npz" in text for text in written.problems)
    assert not written.flags["blocks/img"][1, 1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "adaround_cache_v9"}, "found 'adaround_cache_v9'"),
        ({"format": None}, "adaround_cache_v1 is read"),
        ({"block_names": ["mm0", "mm2"]}, "block_names are not"),
        ({"block_names": ["mm0", "../x"]}, "block_names are not"),
        ({"samples": []}, "no samples are listed"),
        ({"samples": [{"img_idx": -1, "step_idx": 0}]}, "out of range"),
        ({"samples": "x"}, "no key 'samples'"),
    ],
)
def test_metadata_that_cannot_be_used(folder: Path, changes: dict, says: str) -> None:
    dump(folder / "metadata.json", {**cache_metadata(IDS), **changes})
    with pytest.raises(SourceError) as caught:
        plan(folder)
    assert says in one_line(str(caught.value))
