"""A source is known by its content, wherever it lies and whatever it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.sources import SOURCES, detect, plan

from support.source_runs import activations_run, block_cache, dump, latents_run, one_line, run
from taqstore.errors import SourceError


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    folder = tmp_path / "my run"
    latents_run(folder)
    block_cache(folder / "adaround_cache")
    activations_run(folder / "activations")
    return folder


def kinds(path: Path) -> list[str]:
    return [source.kind for source in detect(path)]


def test_a_whole_run_and_each_of_its_parts(whole: Path) -> None:
    assert kinds(whole) == ["latents", "blocks", "activations"]
    for part, kind in (
        ("samples", "latents"),
        ("manifest.json", "latents"),
        ("adaround_cache", "blocks"),
        ("adaround_cache/samples", "blocks"),
        ("adaround_cache/metadata.json", "blocks"),
        ("activations", "activations"),
        ("activations/timestep_stats", "activations"),
        ("activations/layer_statistics.json", "activations"),
    ):
        assert kinds(whole / part) == [kind], part


def test_renamed_parts_are_still_found(whole: Path) -> None:
    (whole / "adaround_cache").rename(whole / "cache of tuesday")
    (whole / "activations").rename(whole / "stats")
    assert kinds(whole) == ["latents", "blocks", "activations"]
    plans = plan(whole)
    assert all(not run(p).problems for p in plans)
    assert [p.path.name for p in plans] == ["my run", "cache of tuesday", "stats"]


def test_only_filters_by_kind(whole: Path) -> None:
    assert [p.source for p in plan(whole, only=["blocks", "samples"])] == ["blocks"]
    with pytest.raises(SourceError, match="holds no samples") as caught:
        plan(whole, only=("samples",))
    assert "latents, blocks, activations" in one_line(str(caught.value))


def test_of_several_parts_an_unusable_one_is_a_problem(whole: Path) -> None:
    (whole / "manifest.json").unlink()
    latents, blocks, _ = plan(whole)
    assert "manifest.json is missing" in one_line(latents.problems[0].text)
    assert not latents.units
    assert blocks.units
    with pytest.raises(SourceError, match=r"manifest\.json is missing"):
        plan(whole, only=["latents"])


def test_a_cache_without_metadata_is_not_taken_for_latents(whole: Path) -> None:
    (whole / "adaround_cache" / "metadata.json").unlink()
    with pytest.raises(SourceError, match=r"metadata\.json: cannot be read"):
        plan(whole / "adaround_cache")


def test_files_by_content(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", xs=np.zeros(1), ts=np.zeros(1))
    np.savez(tmp_path / "b.npz", timesteps_unique=np.zeros(1))
    dump(tmp_path / "c.json", {"version": "lut_v1"})
    dump(tmp_path / "d.json", {"format": "per_timestep_quant_config_v4"})
    assert kinds(tmp_path) == ["samples", "postgelu", "schedule", "results"]
    assert kinds(tmp_path / "b.npz") == ["postgelu"]
    dump(tmp_path / "d.json", {"format": "layer_temporal_analysis_v4"})
    with pytest.raises(SourceError, match="found 'layer_temporal_analysis_v4'") as caught:
        detect(tmp_path / "d.json")
    assert "DiT_cali_data.npz" in one_line(str(caught.value))


def test_what_is_not_known(whole: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", weights=np.zeros(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("hello")
    for path, says in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "x.npz", "keys weights"),
        (tmp_path / "empty", "nothing to ingest"),
        (tmp_path / "x.txt", "no source of their own"),
        (whole / "samples" / "0000_000.npz", "one sample of a run"),
        (whole / "latents", "nothing to ingest"),
    ):
        with pytest.raises(SourceError) as caught:
            detect(path)
        assert says in one_line(str(caught.value))


def test_the_kinds_that_the_command_line_offers() -> None:
    expected = ["latents", "blocks", "activations", "samples", "postgelu", "schedule", "results"]
    expected.append("weights")
    assert list(SOURCES) == expected
