"""What may not be trusted or is not there: pickles, lying sizes, disks, formats, flipped bits."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from taqstore.pipelines.ingest import ingest

from support.same_stores import assert_same_stores, raw_arrays
from taqstore import open_store
from taqstore.errors import SourceError, StoreError, TaqError
from taqstore.run.mode import Mode
from taqstore.testing import (
    RunShape,
    damage,
    make_activations,
    make_latents,
    make_lut_schedule,
    make_phase1,
    make_postgelu,
    make_run_folder,
    make_unnamed_statistics,
)
from taqstore.upkeep.repair import repair_store
from taqstore.upkeep.verify import verify_store

SHAPE = RunShape(
    images=3, steps=4, blocks=2, hidden=4, image_tokens=3, text_tokens=2, latent=(2, 3),
    channels=4, stats_stride=2, cache_stride=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("made") / "run", shape=SHAPE)


@pytest.fixture(scope="module")
def whole(run: Path) -> Path:
    path = run.parent / "whole.zarr"
    assert ingest([run], path).problems == []
    return path


def refusal(sources: list[Path], store: Path, **options: Any) -> str:
    """The one line with which the sources are refused altogether."""
    with pytest.raises(TaqError) as caught:
        ingest(sources, store, **options)
    line = str(caught.value)
    assert "\n" not in line
    assert "; " in line, f"no remedy: {line}"
    return line


def test_pickled_objects_are_never_unpickled(tmp_path: Path, run: Path) -> None:
    broken = Path(shutil.copytree(run, tmp_path / "run"))
    marker = tmp_path / "unpickled"
    spots = {"samples/0001_002.npz": "x", "adaround_cache/samples/0000_000.npz": "mm0__arg0",
             "activations/timestep_stats/step_2.npz": "mm0_img_mlp_fc2__avg_max"}  # fmt: skip
    for file, key in spots.items():
        damage.pickled_npz(broken / file, key=key, marker=marker)
    summary = ingest([broken], tmp_path / "s.zarr")
    assert not marker.exists()
    for file, key in spots.items():
        lines = [line for line in summary.problems if f"{file}: {key}: " in line]
        assert len(lines) == 1, summary.problems
        assert "pickle" in lines[0] or "object" in lines[0]
    assert len(summary.problems) == len(spots)
    with np.load(broken / "samples/0001_002.npz", allow_pickle=True) as trapped:
        trapped["x"]  # the trap does work
    assert marker.exists()


def test_pickled_prompts_are_read_as_data_or_not_at_all(tmp_path: Path) -> None:
    one, marker = replace(SHAPE, images=1), tmp_path / "unpickled"
    file = make_phase1(tmp_path / "cali.npz", shape=one, prompt_count=1)
    with np.load(file, allow_pickle=True) as made:  # made above: strings
        arrays = {key: made[key] for key in made.files}
    np.savez(file, **{**arrays, "prompts": arrays["prompts"].astype(str)})
    damage.pickled_npz(file, key="prompts", marker=marker)
    line = refusal([file], tmp_path / "s.zarr")
    assert "cali.npz: prompts: " in line
    assert "--prompts FILE" in line
    assert not marker.exists()
    np.savez(file, **{**arrays, "prompts": np.array(["a cat"], object)})
    assert ingest([file], tmp_path / "s.zarr").problems == []
    assert open_store(tmp_path / "s.zarr")["samples"].prompt.values.tolist() == ["a cat"]


def test_a_nan_row_of_phase_1_is_one_bad_sample(tmp_path: Path) -> None:
    good = make_phase1(tmp_path / "good.npz", shape=SHAPE)
    with np.load(good, allow_pickle=True) as made:  # made above: strings
        np.savez(good, **{**made, "prompts": made["prompts"].astype(str)})
    bad = Path(shutil.copy(good, tmp_path / "cali.npz"))
    damage.poison(bad, "xs", index=2 * 3 * 4 + 1)
    summary = ingest([bad], tmp_path / "s.zarr")
    assert len(summary.problems) == 1
    assert "cali.npz: xs[1]: NaN or Inf" in summary.problems[0]
    assert "; " in summary.problems[0]
    assert summary.groups["samples"].refused == 1
    assert 1 not in open_store(tmp_path / "s.zarr")["samples"].sample.values
    shutil.copy(good, bad)
    assert ingest([bad], tmp_path / "s.zarr", mode=Mode(resume=True)).problems == []
    ingest([good], tmp_path / "whole.zarr")
    assert_same_stores(tmp_path / "s.zarr", tmp_path / "whole.zarr")


def test_a_timestep_missing_from_phase_2(tmp_path: Path) -> None:
    good = make_postgelu(tmp_path / "good.npz", shape=SHAPE)
    bad = Path(shutil.copy(good, tmp_path / "stats.npz"))
    with np.load(bad) as file:
        key = next(k for k in file.files if k.startswith("mm_01_img::t=602") and "mean" in k)
    damage.drop_key(bad, key)
    summary = ingest([bad], tmp_path / "s.zarr")
    assert len(summary.problems) == 1
    assert f"stats.npz: {key}: missing" in summary.problems[0]
    shutil.copy(good, bad)
    assert ingest([bad], tmp_path / "s.zarr", mode=Mode(resume=True)).problems == []
    ingest([good], tmp_path / "whole.zarr")
    assert_same_stores(tmp_path / "s.zarr", tmp_path / "whole.zarr")


@pytest.mark.parametrize("lie", ["claims 8 TiB", "holds 256 MiB"])
def test_lying_zips_cost_neither_memory_nor_time(tmp_path: Path, lie: str) -> None:
    folder = make_latents(tmp_path / "run", shape=SHAPE)
    file = folder / "samples" / "0001_002.npz"
    if lie == "claims 8 TiB":
        damage.claim_terabytes(file, key="x")
    else:
        damage.replace_array(file, "x", np.zeros((1, 2, 3, 4 << 20), np.float64))
        assert file.stat().st_size < 1 << 20
    ingest([make_latents(tmp_path / "warm", shape=SHAPE)], tmp_path / "warm.zarr")
    tracemalloc.start()
    started = time.monotonic()
    summary = ingest([folder], tmp_path / "s.zarr")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - started < 20
    assert peak < 32 << 20
    assert len(summary.problems) == 1
    assert "0001_002.npz: x: " in summary.problems[0]
    assert summary.groups["latents"].written == 2


def unknown_statistics(folder: Path) -> Path:
    path = make_activations(folder, shape=SHAPE) / "layer_statistics.json"
    return damage.edit_json(path, lambda d: d.update(format="per_timestep_npz_v9"))


def other_json(folder: Path) -> Path:
    path = make_lut_schedule(folder / "lut.json", shape=SHAPE)
    return damage.edit_json(path, lambda d: d.update(version="lut_v2"))


def no_manifest(folder: Path) -> Path:
    (make_latents(folder, shape=SHAPE) / "manifest.json").unlink()
    return folder


def other_npz(folder: Path) -> Path:
    np.savez(folder / "other.npz", weights=np.zeros(3))
    return folder / "other.npz"


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (unknown_statistics, r"layer_statistics.json: unknown format .found 'per_timestep_npz_v9'"),
        (other_json, r"lut.json: unknown format .found 'lut_v2'"),
        (other_npz, r"other.npz: unknown npz .found keys weights"),
        (no_manifest, r"manifest.json is missing: prompts and seeds"),
        (lambda f: make_unnamed_statistics(f), r"layer_statistics.json: (unknown|statistics of)"),
        (lambda f: damage.truncate(make_phase1(f / "c.npz", shape=SHAPE)), r"c.npz: not a compl"),
        (lambda f: f, "nothing to ingest here"),
        (lambda f: f / "gone", "gone: does not exist"),
    ],
)  # fmt: skip
def test_unknown_sources_are_refused_by_name(
    tmp_path: Path, make: Callable[[Path], Path], line: str
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    assert re.search(line, refusal([make(folder)], tmp_path / "s.zarr"))
    assert not (tmp_path / "s.zarr").exists()


def test_a_store_of_a_newer_format_is_left_alone(tmp_path: Path, run: Path, whole: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    damage.edit_json(
        store / "zarr.json", lambda root: root["attributes"]["taqstore"].update(format=3)
    )
    before = raw_arrays(store)
    for mode in (Mode(resume=True), Mode(force=True)):
        line = refusal([run], store, mode=mode)
        assert "store format 3 is newer" in line
        assert "upgrade taqstore" in line
    assert all(np.array_equal(v, raw_arrays(store)[k]) for k, v in before.items() if "x" in k)


def test_another_tools_store_is_left_alone(tmp_path: Path, run: Path) -> None:
    zarr.open_group(tmp_path / "s.zarr", mode="w").create_array("mine", shape=3, dtype="i4")
    assert "not a taqstore" in refusal([run], tmp_path / "s.zarr")
    assert [k for k, _ in zarr.open_group(tmp_path / "s.zarr").members()] == ["mine"]


def flip(store: Path, pattern: str) -> Path:
    file = next(iter(sorted(store.glob(pattern))))
    return damage.flip_bit(file, offset=3)


def test_a_flipped_bit_in_a_chunk(tmp_path: Path, run: Path, whole: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    file = flip(store, "latents/x/c/1/0/0/0/0")
    with pytest.raises(StoreError, match=r"latents/x/c/1.*checksum.*--resume"):
        open_store(store)["latents"].x.sel(image=1).load()
    (finding,) = verify_store(store).damage
    assert store / finding.key == file
    assert (finding.group, finding.item) == ("latents", (1,))
    ingest([run], store, only=["latents"], mode=Mode(force=True))  # the remedy the line names
    assert_same_stores(store, whole)


@pytest.mark.parametrize(
    ("name", "line", "written"),
    [
        ("written/c.0", "latents/written/c.0: damaged completion flags", 0),
        ("items/record/c/0/0", "latents/items/record/c/0/0: damaged records of items", 3),
    ],
)
def test_a_flipped_bit_in_closed_flags(
    tmp_path: Path, run: Path, whole: Path, name: str, line: str, written: int
) -> None:
    """Flags are made again from the records; without a record nothing tells what an item owns."""
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    flip(store, f"latents/{name}")
    with pytest.raises(StoreError, match=rf"{line}.*taqstore repair"):
        open_store(store)["latents"].x.load()
    assert [f.key for f in verify_store(store).damage] == [f"latents/{name}"]
    assert all(step.done for step in repair_store(store))  # the remedy the line names
    assert verify_store(store).damage == ()
    summary = ingest([run], store, mode=Mode(resume=True))
    counts = summary.groups["latents"]
    assert (counts.written, counts.skipped) == (written, 3 - written)
    assert_same_stores(store, whole)


def test_a_flipped_bit_in_a_coordinate(tmp_path: Path, run: Path, whole: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    flip(store, "latents/sigma/c/0")
    line = refusal([run], store, mode=Mode(resume=True))
    assert "latents/sigma/c/0: damaged coordinate" in line
    assert "taqstore repair" in line
    assert all(step.done for step in repair_store(store))
    assert_same_stores(store, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 kB; `remount` changes it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True
    )
    if not made or made.returncode:
        pytest.skip("a full disk needs a small tmpfs, and this user may not mount one")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def test_a_full_disk_then_more_room(small_disk: Path, run: Path, whole: Path) -> None:
    store = small_disk / "s.zarr"
    line = refusal([run], store)
    assert str(store) in line
    assert "the disk is full" in line
    assert "--resume" in line
    remount(small_disk, "size=64m")
    assert verify_store(store).damage == ()
    assert ingest([run], store, mode=Mode(resume=True)).problems == []
    assert_same_stores(store, whole)


def test_a_read_only_disk(small_disk: Path, run: Path, whole: Path) -> None:
    remount(small_disk, "size=64m,ro")
    line = refusal([run], small_disk / "s.zarr")
    assert "read-only; choose a writable path" in line
    remount(small_disk, "rw")
    ingest([run], small_disk / "s.zarr")
    remount(small_disk, "ro")
    assert "read-only" in refusal([run], small_disk / "s.zarr", mode=Mode(resume=True))
    assert verify_store(small_disk / "s.zarr").damage == ()  # reading needs no lock and no write
    assert list(open_store(small_disk / "s.zarr")) == list(open_store(whole))


def test_a_folder_without_permission(tmp_path: Path, run: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind root; the read-only disk is tested instead")
    (tmp_path / "locked").mkdir(mode=0o555)
    assert "may not be written" in refusal([run], tmp_path / "locked" / "s.zarr")


def test_a_file_size_limit(tmp_path: Path, run: Path, whole: Path) -> None:
    """As a quota does: writes fail part-way, in another process, through the command line."""
    store = tmp_path / "s.zarr"
    command = [sys.executable, "-m", "taqstore", "ingest", str(run), str(store), "--resume"]
    limit = max(p.stat().st_size for p in whole.rglob("*") if p.is_file()) - 100
    # Read by the child before it runs: no thread of this process is involved.
    limited = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, {limit}))"
    start = f"{limited}; import runpy; runpy.run_module('taqstore', run_name='__main__')"
    failed = subprocess.run(
        [sys.executable, "-c", start, *command[3:]], capture_output=True, text=True, timeout=60
    )
    assert failed.returncode == 1
    assert "file would be too large" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit
    assert verify_store(store).damage == ()
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    assert_same_stores(store, whole)


def test_source_errors_are_taq_errors() -> None:
    assert issubclass(SourceError, TaqError)
    assert issubclass(StoreError, TaqError)
