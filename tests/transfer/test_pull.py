"""What is pulled is what was there: whole files byte for byte, cut ones value for value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.ingest import ingest

from support.format1 import unpack
from support.merge_runs import make, write_latents
from support.same_stores import assert_same_bits, assert_same_stores
from support.sensitivity_store import write_sensitivities
from support.thinned import crossed
from support.weight_store import write_weights
from taqstore import create_store, open_store
from taqstore.errors import LayoutError, MissingError, StoreError
from taqstore.names import site_of
from taqstore.query.select import select
from taqstore.store.group_writer import GroupWriter
from taqstore.testing import RunShape, make_run_folder, make_second_moments, make_store
from taqstore.transfer import Choice, pull
from taqstore.upkeep import verify_store

SHAPE = RunShape(images=3, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)


def _ingested(path: Path) -> None:
    folder = make_run_folder(path.with_name(f"{path.name}.run"), shape=SHAPE)
    ingest([folder], path)


def _several(path: Path) -> None:
    write_weights(path)
    write_sensitivities(path, unit="site", formats=["rtn-w4"], images=(0, 5))


KINDS: dict[str, Callable[[Path], Any]] = {
    "observed": lambda path: make_store(path, shape=SHAPE),
    "ingested": _ingested,
    "gaps": lambda path: make(path, [4, 3, 9]),
    "moments": lambda path: make_second_moments(path, shape=SHAPE),
    "weights": _several,
}


@pytest.fixture(scope="module", params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "source"
    KINDS[request.param](path)
    return path


def test_a_whole_store_is_the_same_store(source: Path, tmp_path: Path) -> None:
    planned = pull(source, tmp_path / "out", dry_run=True).plan
    assert not (tmp_path / "out").exists()
    done = pull(source, tmp_path / "out")
    assert assert_same_stores(tmp_path / "out", source) > 5
    assert not verify_store(tmp_path / "out").damage
    assert planned is not None
    assert (planned.bytes, planned.at_most) == (done.bytes_out, set())
    assert {path: group.to_write for path, group in planned.groups.items()} == {
        path: counts.written for path, counts in done.groups.items()
    }
    again = pull(source, tmp_path / "out")
    assert (again.written, again.skipped) == (0, done.written)
    records = open_store(tmp_path / "out").provenance
    assert [r["id"] for r in records[:-1]] == [r["id"] for r in open_store(source).provenance]
    assert records[-1]["parameters"]["left_out"] == []
    assert records[-1]["parameters"]["cut"] == {}


@pytest.mark.parametrize(
    "asked",
    [
        {"layer": "mm0.*"},
        {"step": "5"},
        {"step": "0:30:2"},
        {"image": "1:"},
        {"block": "mm0"},
        {"layer": "*.img", "step": "5:", "image": "0,4,9"},
    ],
    ids=str,
)
def test_what_is_cut_is_the_selection(source: Path, tmp_path: Path, asked: dict[str, str]) -> None:
    """As `query` would select it, in every group that has any of it; the others are whole."""
    theirs = open_store(source, chunks=None, incomplete=True)
    if not all(any(_has(theirs[path], n, t, path) for path in theirs) for n, t in asked.items()):
        with pytest.raises(MissingError):  # nothing in the store is what an option speaks of
            pull(source, tmp_path / "out", choice=Choice(**asked))
        assert not (tmp_path / "out").exists()
        return
    outcome = pull(source, tmp_path / "out", choice=Choice(**asked))
    ours = open_store(tmp_path / "out", chunks=None, incomplete=True)
    assert not verify_store(tmp_path / "out").damage
    left = {note.partition(" ")[0] for note in outcome.notes}
    assert {*ours} == {*theirs} - left
    for path in ours:
        want = theirs[path]
        for name, text in asked.items():
            if _means(name, want):
                want = select(want, site=site_of(path), **{name: text})
        for name in want.variables:
            if name != "written":
                assert_same_bits(*(_values(ds[name]) for ds in (ours[path], want)), (path, name))
    for path in left:
        with pytest.raises(MissingError):
            select(theirs[path], site=site_of(path), **asked)


def _has(dataset: Any, name: str, text: str, path: str) -> bool:
    """Whether a group has any of what one option chooses."""
    try:
        select(dataset, site=site_of(path), **{name: text})
    except MissingError:
        return False
    return _means(name, dataset)


def _values(variable: Any) -> np.ndarray:
    """Texts without the width of the longest."""
    values = np.asarray(variable.values)
    return values.astype(object) if values.dtype.kind == "U" else values


def _means(name: str, dataset: Any) -> bool:
    dims = {dim for array in dataset.data_vars.values() for dim in array.dims} - {"written"}
    if name == "image":
        return "image" in dataset.coords and "target" not in dims
    if name == "block":
        return bool({"boundary", "block"} & dims) or ("block" in dataset.coords and "layer" in dims)
    return name in dims


def test_images_added_one_after_the_other_are_the_whole(tmp_path: Path) -> None:
    source = make(tmp_path / "source", [4, 3, 9])
    for image in ("4", "3", "4,3", "9"):
        pull(source, tmp_path / "out", choice=Choice(image=image))
    assert assert_same_stores(tmp_path / "out", source) > 5


def test_a_chosen_site_and_its_groups(tmp_path: Path) -> None:
    source = tmp_path / "source"
    _ingested(source)
    pull(source, tmp_path / "out", choice=Choice(groups=["latents", "pooled"], sites=["fc2_in"]))
    found = list(open_store(tmp_path / "out"))
    assert found == [p for p in open_store(source) if p == "latents" or (
        p.startswith("pooled/") and site_of(p) == "mlp.fc2")]  # fmt: skip
    pull(source, tmp_path / "two", choice=Choice(groups=["pooled/*/attn.*", "timestep_stats/fc1"]))
    assert {site_of(p) for p in open_store(tmp_path / "two")} == {
        "attn.qkv", "attn.o_proj", "mlp.fc1"}  # fmt: skip
    record = open_store(tmp_path / "two").provenance[-1]
    assert "latents" in record["parameters"]["left_out"]
    for choice in (Choice(groups=["latent"]), Choice(sites=["final.linear"]), Choice(step="77")):
        with pytest.raises(MissingError):
            pull(source, tmp_path / "none", choice=choice)
    assert not (tmp_path / "none").exists()


def test_linears_and_records_of_what_was_cut(tmp_path: Path) -> None:
    source = make_store(tmp_path / "source", shape=SHAPE)
    pull(source, tmp_path / "out", choice=Choice(layer="mm0.img", step="5:"))
    path = "activations/mlp.fc2"
    theirs, ours = (open_store(p)[path] for p in (source, tmp_path / "out"))
    kept = open_store(tmp_path / "out").provenance[-1]["parameters"]["cut"][path]
    assert kept == {dim: [ours.sizes[dim], theirs.sizes[dim]] for dim in ("layer", "step")}


# Where it is stopped is a count of commits, whatever they commit.
@pytest.mark.parametrize(("source", "stop"), crossed(KINDS, (0, 3, 7)), indirect=["source"])
def test_a_killed_pull_is_gone_on_with(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    commit, left = GroupWriter.commit, [stop]

    def killed(*arguments: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        commit(*arguments)

    monkeypatch.setattr(GroupWriter, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        pull(source, tmp_path / "out")
    monkeypatch.setattr(GroupWriter, "commit", commit)
    assert not verify_store(tmp_path / "out").damage
    assert pull(source, tmp_path / "out").skipped == stop
    assert assert_same_stores(tmp_path / "out", source) > 5


@pytest.mark.parametrize("choice", [Choice(), Choice(step="0:4")], ids=["whole", "cut"])
def test_a_damaged_file_is_named_and_its_item_not_flagged(tmp_path: Path, choice: Choice) -> None:
    with create_store(tmp_path / "source") as store:
        write_latents(store, [0, 1, 2], {})
    whole = (tmp_path / "source/latents/x/c/1/0/0/0/0").read_bytes()
    raw = bytearray(whole)
    raw[9] ^= 4
    (tmp_path / "source/latents/x/c/1/0/0/0/0").write_bytes(raw)
    with pytest.raises(StoreError, match=r"latents/x/c/1/0/0/0/0: damaged shard"):
        pull(tmp_path / "source", tmp_path / "out", choice=choice)
    assert open_store(tmp_path / "out").mask("latents").tolist() == [True, False, False]
    assert not verify_store(tmp_path / "out").damage
    (tmp_path / "source/latents/x/c/1/0/0/0/0").write_bytes(whole)
    assert pull(tmp_path / "source", tmp_path / "out", choice=choice).written == 2


def test_a_target_that_has_something_else(tmp_path: Path) -> None:
    source = make(tmp_path / "source", [0, 1])
    with create_store(tmp_path / "other") as store:
        write_latents(store, [0, 1], {"model": "another"})
    with pytest.raises(StoreError, match="the target is the source"):
        pull(source, source)
    pull(source, tmp_path / "out", choice=Choice(step="0:3"))
    with pytest.raises(LayoutError, match=r"differs.* in .*step.*choose as it was chosen before"):
        pull(source, tmp_path / "out")


def test_format_1_is_brought_to_format_2(tmp_path: Path) -> None:
    source = unpack(tmp_path)
    pull(source, tmp_path / "out")
    ours, theirs = (open_store(p, chunks=None) for p in (tmp_path / "out", source))
    assert list(ours) == list(theirs)
    for path in theirs:
        for name in theirs[path].variables:
            assert_same_bits(ours[path][name].values, theirs[path][name].values, (path, name))
    assert not verify_store(tmp_path / "out").damage
    assert pull(source, tmp_path / "out").written == 0


def test_another_item_in_its_place_is_refused(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        make_store(tmp_path / name, shape=SHAPE, seed=seed)
    pull(tmp_path / "a", tmp_path / "out", choice=Choice(image="0"))
    with pytest.raises(StoreError, match=r"item 0 of activations/\S+ is there, and another one"):
        pull(tmp_path / "b", tmp_path / "out")
