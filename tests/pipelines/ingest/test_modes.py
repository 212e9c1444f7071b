"""How an ingest treats what is there already: resume, force, growth, strict; what it reports."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.ingest import ingest

from support.same_stores import as_bytes, assert_same_bits, assert_same_stores, raw_arrays
from support.told import Told
from taqstore import open_store
from taqstore.errors import SourceError, StoreError
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.testing import (
    RunShape,
    damage,
    make_activations,
    make_adaround_cache,
    make_latents,
    make_lut_schedule,
    make_run_folder,
)
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(
    images=3, steps=4, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(5, 3),
    channels=4, stats_stride=2, cache_stride=2,
)  # fmt: skip
BLOCKS = ["blocks/img", "blocks/txt"]
SITES = [f"pooled/timestep_stats/{s}" for s in ("attn.o_proj", "attn.qkv", "mlp.fc1", "mlp.fc2")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("made") / "run", shape=SHAPE)


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    """The run in a store, to compare with; never written again."""
    path = run.parent / "whole.zarr"
    assert ingest([run], path).problems == []
    return path


def counts(summary: Outcome) -> dict[str, tuple[int, int, int]]:
    return {path: (c.written, c.skipped, c.refused) for path, c in summary.groups.items()}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of every file but metadata and provenance."""
    files = [p for p in folder.rglob("*") if p.is_file() and "zarr.json" not in p.name]
    kept = [p for p in files if "provenance" not in p.parts]
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in kept}


def test_a_run_folder_fills_all_groups(whole: Path) -> None:
    assert list(open_store(whole)) == [*BLOCKS, "latents", *SITES]
    report = verify_store(whole)
    assert report.damage == report.notes == ()
    records = open_store(whole).provenance
    assert [r["parameters"]["source"] for r in records] == ["latents", "blocks", "activations"]
    assert [r["counts"]["written"] for r in records] == [3, 8, 8]
    assert all("/" not in entry["name"] for r in records for entry in r["inputs"])
    assert not [p for p in whole.parent.iterdir() if p.name.startswith(".whole") and p.is_dir()]


def test_moved_folders_and_parts_alone_give_the_same_store(
    tmp_path: Path, run: Path, whole: Path
) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "else where" / "renämed"))
    ingest([moved], tmp_path / "moved.zarr")
    assert_same_stores(tmp_path / "moved.zarr", whole)
    parts = [moved / "samples", moved / "adaround_cache", moved / "activations"]
    ingest(parts, tmp_path / "parts.zarr")
    assert_same_stores(tmp_path / "parts.zarr", whole)


def test_the_store_does_not_depend_on_workers(tmp_path: Path, run: Path, whole: Path) -> None:
    ingest([run], tmp_path / "s.zarr", workers=1)
    assert_same_stores(tmp_path / "s.zarr", whole)


def test_memory_url_holds_the_same(run: Path, whole: Path) -> None:
    address = "memory://ingest-modes/run.zarr"
    assert ingest([run], address).problems == []
    remote, local = open_store(address, incomplete=True), open_store(whole, incomplete=True)
    assert list(remote) == list(local)
    for path, dataset in local.items():
        for name, values in dataset.variables.items():
            assert_same_bits(remote[path][name].values, values.values, (path, name))
    again = ingest([run], address, mode=Mode(resume=True))
    assert {(c.written, c.refused) for c in again.groups.values()} == {(0, 0)}


@pytest.mark.parametrize(
    ("kind", "groups"), [("latents", ["latents"]), ("blocks", BLOCKS), ("activations", SITES)]
)
def test_only_takes_one_kind(tmp_path: Path, run: Path, kind: str, groups: list[str]) -> None:
    ingest([run], tmp_path / "s.zarr", only=[kind])
    assert list(open_store(tmp_path / "s.zarr")) == groups


def test_only_that_leaves_nothing_is_an_error(tmp_path: Path, run: Path) -> None:
    with pytest.raises(SourceError, match=r"holds no samples \(found latents, blocks, activ"):
        ingest([run], tmp_path / "s.zarr", only=["samples"])
    assert not (tmp_path / "s.zarr").exists()


def test_writing_again_is_refused_resumed_or_forced(tmp_path: Path, run: Path) -> None:
    store = tmp_path / "s.zarr"
    ingest([run], store)
    before = snapshot(store)
    with pytest.raises(StoreError, match=r"latents already holds 3 of the 3.*--resume.*--force"):
        ingest([run], store)
    assert snapshot(store) == before
    again = ingest([run], store, mode=Mode(resume=True))
    assert counts(again)["latents"] == (0, 3, 0)
    assert {(w, r) for w, _, r in counts(again).values()} == {(0, 0)}
    assert again.bytes_in == 0
    assert snapshot(store) == before  # not one file was touched
    forced = ingest([run], store, mode=Mode(force=True))
    assert counts(forced)["latents"] == (3, 0, 0)
    assert snapshot(store).keys() == before.keys()
    assert all(snapshot(store)[k][0] != t for k, (t, _) in before.items())


def test_force_replaces_only_what_the_source_fills(tmp_path: Path, run: Path, whole: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    other = make_latents(tmp_path / "other", shape=replace(SHAPE, images=2), seed=5)
    with pytest.raises(StoreError, match="prompt of images already written"):
        ingest([other], store, mode=Mode(resume=True))
    ingest([other], store, mode=Mode(force=True))
    ingest([other], tmp_path / "expected.zarr")
    ours, kept, new = (raw_arrays(p) for p in (store, whole, tmp_path / "expected.zarr"))
    assert ours.keys() == kept.keys()
    for name, values in ours.items():
        assert_same_bits(values, (new if name.startswith("latents/") else kept)[name], name)


def test_force_with_two_sources_of_one_group_keeps_both(tmp_path: Path) -> None:
    shapes = [replace(SHAPE, images=2), SHAPE]
    folders = [make_latents(tmp_path / f"r{i}", shape=s) for i, s in enumerate(shapes)]
    for file in [*folders[1].glob("samples/000[01]_*"), folders[1] / "latents" / "0000.npy"]:
        file.unlink()
    for image in (0, 1):
        damage.hole_in_manifest(folders[1], image=image)
    for _ in range(2):
        summary = ingest(folders, tmp_path / "s.zarr", mode=Mode(force=True))
        assert counts(summary) == {"latents": (3, 0, 0)}
        assert open_store(tmp_path / "s.zarr")["latents"].image.values.tolist() == [0, 1, 2]


def test_growth_by_a_longer_run(tmp_path: Path) -> None:
    """A second folder holds the first one's images and more: the store ends as if made at once."""
    longer = replace(SHAPE, images=5)
    for maker in (make_latents, make_adaround_cache):
        first = maker(tmp_path / "first" / maker.__name__, shape=SHAPE)
        second = maker(tmp_path / "second" / maker.__name__, shape=longer)
        ingest([first], tmp_path / "grown.zarr")
        ingest([second], tmp_path / "grown.zarr", mode=Mode(resume=True))
        ingest([second], tmp_path / "once.zarr")
    grown, once = open_store(tmp_path / "grown.zarr"), open_store(tmp_path / "once.zarr")
    assert grown["blocks/img"].image.values.tolist() == [0, 1, 2]  # 0 and 1, then 0 and 2
    for path in once:
        ours = grown[path].sel(image=once[path].image.values)
        for name, expected in once[path].variables.items():
            assert_same_bits(ours[name].values, expected.values, (path, name))
    assert verify_store(tmp_path / "grown.zarr").damage == ()


def test_growth_of_streams_whose_outputs_are_kept(tmp_path: Path) -> None:
    """The store keeps one layout: equal outputs join kept ones, the reverse is refused."""
    broken = make_adaround_cache(tmp_path / "b" / "cache", shape=SHAPE, break_boundary=[0])
    longer = make_adaround_cache(tmp_path / "l" / "cache", shape=replace(SHAPE, images=5))
    (broken / "samples" / "0000_000.npz").replace(tmp_path / "aside.npz")
    assert len(ingest([broken], tmp_path / "s.zarr").problems) == 1
    assert ingest([longer], tmp_path / "s.zarr", mode=Mode(resume=True)).problems == []
    group = open_store(tmp_path / "s.zarr")["blocks/img"]
    assert group.output_kept.sel(image=1).values[:, 0].all()
    assert not group.output_kept.sel(image=2).values.any()
    for image, step, folder in ((0, 0, longer), (0, 2, broken), (1, 2, broken), (2, 2, longer)):
        with np.load(folder / "samples" / f"{image:04d}_{step:03d}.npz") as source:
            for boundary, key in enumerate(("mm0__arg0", "mm1__arg0", "mm1__out0")):
                ours = group.x.sel(image=image, step=step).values[boundary]
                assert_same_bits(ours.astype(source[key].dtype), source[key][:, :, 0], key)
    assert verify_store(tmp_path / "s.zarr").damage == ()
    (tmp_path / "s.zarr" / "blocks" / "img" / "output" / "c" / "1/1/0/0/0/0").unlink()
    assert "missing, though" in verify_store(tmp_path / "s.zarr").damage[0].what
    ingest([longer], tmp_path / "plain.zarr")
    with pytest.raises(StoreError, match=r"output missing in the store.*--force"):
        ingest([broken], tmp_path / "plain.zarr", mode=Mode(resume=True))


def test_statistics_of_other_steps_do_not_fit(tmp_path: Path) -> None:
    ingest([make_activations(tmp_path / "a", shape=SHAPE)], tmp_path / "s.zarr")
    finer = make_activations(tmp_path / "b", shape=replace(SHAPE, stats_stride=1))
    with pytest.raises(
        StoreError, match=r"differs from what is to be written in .*step.*another store"
    ):
        ingest([finer], tmp_path / "s.zarr", mode=Mode(resume=True))


def test_strict_stops_at_the_first_bad_item(tmp_path: Path) -> None:
    folder = make_latents(tmp_path / "run", shape=SHAPE)
    damage.poison(folder / "samples" / "0001_002.npz", "x")
    with pytest.raises(SourceError, match=r"0001_002\.npz: x: NaN or Inf"):
        ingest([folder], tmp_path / "s.zarr", strict=True, workers=1)
    # The next item may have been under way.
    assert 1 not in open_store(tmp_path / "s.zarr")["latents"].image.values.tolist()
    damage.drop_step(folder, step=0, image=2)
    with pytest.raises(SourceError, match=r"step 0 is missing"):
        ingest([folder], tmp_path / "t.zarr", strict=True)
    summary = ingest([folder], tmp_path / "t.zarr", mode=Mode(resume=True))
    assert (summary.groups["latents"].refused, len(summary.problems)) == (2, 2)
    assert open_store(tmp_path / "t.zarr")["latents"].image.values.tolist() == [0]


def test_one_bad_part_does_not_hold_up_the_others(tmp_path: Path) -> None:
    folder = make_run_folder(tmp_path / "run", shape=SHAPE)
    (folder / "adaround_cache" / "metadata.json").write_text('{"format": "adaround_cache_v9"}')
    summary = ingest([folder], tmp_path / "s.zarr")
    assert len(summary.problems) == 1
    assert "adaround_cache_v9" in summary.problems[0]
    assert list(open_store(tmp_path / "s.zarr")) == ["latents", *SITES]


def test_progress_adds_up_to_the_total(tmp_path: Path, run: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    statistics = copy / "activations" / "timestep_stats" / "step_2.npz"
    damage.poison(statistics, "mm0_img_mlp_fc2__avg_max", value=0.1)  # planned twice
    first, again = Told(), Told()
    summary = ingest([copy], tmp_path / "s.zarr", mode=Mode(progress=first))
    assert first.totals == [summary.bytes_in] == [sum(size for _, size in first.advances)]
    labels = [label for label, _ in first.advances]
    assert len(set(labels)) == len(labels) == 3 + 4 + 4
    ingest([copy], tmp_path / "s.zarr", mode=Mode(resume=True, progress=again))
    assert again.totals == [summary.bytes_in] == [sum(size for _, size in again.advances)]


def test_sources_of_several_kinds_at_once(tmp_path: Path, run: Path) -> None:
    lut = make_lut_schedule(tmp_path / "lut.json", shape=SHAPE)
    with pytest.raises(SourceError, match="does not exist"):
        ingest([run, tmp_path / "nowhere"], tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()  # all is planned before the first byte is written
    ingest([run, lut], tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    assert set(SITES) < set(store)
    assert as_bytes(store["pooled/lut_schedule/mlp.fc1"].sigma.values)
    assert np.isfinite(store["pooled/lut_schedule/mlp.fc1"].alpha.values).all()
