"""Merging equals one run over all images, byte for byte, and refuses what would not be honest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from support.builders import write_latents as write_plain_latents
from support.hostile import Hostile
from support.merge_runs import GROUPS, RUN, SHAPE, SITE, make, write_activations
from support.same_stores import assert_same_stores
from taqstore import open_store
from taqstore.errors import LayoutError, MissingError, StoreError, TaqError
from taqstore.statistics.histogram import Layout
from taqstore.store.group_writer import GroupWriter
from taqstore.store.writer import create_store
from taqstore.testing import raw_activations
from taqstore.testing.store import activations_templates, write_batch
from taqstore.upkeep.merge import merge
from taqstore.upkeep.verify import verify_store


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The stores that tests only read."""
    folder = tmp_path_factory.mktemp("sources")
    return make(folder / "a.zarr", [0, 1, 2]), make(folder / "b.zarr", [3, 4])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run over all images writes."""
    return make(tmp_path_factory.mktemp("whole") / "whole.zarr", [0, 1, 2, 3, 4])


def files(folder: Path) -> dict[str, bytes]:
    """Every chunk and shard; metadata is compared field by field elsewhere."""
    # Records of items are bound to the store, whose name is another in each.
    every = (
        p
        for p in folder.rglob("*")
        if p.is_file() and p.name != "zarr.json" and "items/record" not in p.as_posix()
    )
    found = {str(p.relative_to(folder)): p.read_bytes() for p in every}
    return {name: data for name, data in found.items() if not name.startswith("provenance")}


def metadata(folder: Path) -> dict[str, Any]:
    every = {
        str(p.relative_to(folder)): json.loads(p.read_text()) for p in folder.rglob("zarr.json")
    }
    for document in every.values():
        if marker := document["attributes"].get("taqstore"):
            for own in ("store", "seal"):  # which store it is
                marker.pop(own, None)
            if "files" in marker:
                marker["files"] = {k: v for k, v in marker["files"].items() if "record" not in k}
    return {k: v for k, v in every.items() if "/" in k and not k.startswith("provenance")}


def drop_number(record: dict[str, Any]) -> dict[str, Any]:
    """A provenance record without its place in the store."""
    return {k: v for k, v in record.items() if k != "number"}


def test_merge_is_one_run_byte_for_byte(
    sources: tuple[Path, Path], whole: Path, tmp_path: Path
) -> None:
    done = merge(*sources, tmp_path / "out.zarr")
    assert files(tmp_path / "out.zarr") == files(whole)
    assert metadata(tmp_path / "out.zarr") == metadata(whole)
    assert assert_same_stores(tmp_path / "out.zarr", whole) > 25
    written = {path: counts.written for path, counts in done.groups.items()}
    assert written == dict.fromkeys(written, 5) | {"blocks/img": 9}
    assert done.skipped == 0
    report = verify_store(tmp_path / "out.zarr")
    assert not report.damage
    assert not list(tmp_path.glob(".out.zarr.*.json*"))


def test_order_of_the_arguments_is_order_of_images(
    sources: tuple[Path, Path], tmp_path: Path
) -> None:
    merge(sources[1], sources[0], tmp_path / "out.zarr")
    whole = make(tmp_path / "whole.zarr", [3, 4, 0, 1, 2])
    assert files(tmp_path / "out.zarr") == files(whole)


def test_provenance_of_both_and_of_the_merge(sources: tuple[Path, Path], tmp_path: Path) -> None:
    merge(*sources, tmp_path / "out.zarr")
    first, second, own = (drop_number(r) for r in open_store(tmp_path / "out.zarr").provenance)
    assert [first, second] == [drop_number(r) for p in sources for r in open_store(p).provenance]
    assert own["command"] == "merge"
    assert [i["name"] for i in own["inputs"]] == ["a.zarr", "b.zarr"]
    uuids = [zarr.open_group(p, mode="r").attrs["taqstore"]["uuid"] for p in sources]
    assert [i["uuid"] for i in own["inputs"]] == uuids
    assert str(tmp_path) not in json.dumps(own)


@pytest.mark.parametrize("stop", [0, 8, 16])
def test_resume_after_a_kill(
    sources: tuple[Path, Path],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: int,
) -> None:
    """Killed before the item's flag is set: what is flagged is kept, the rest is copied."""
    commit, left = GroupWriter.commit, [stop]

    def killed(*arguments: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        commit(*arguments)

    monkeypatch.setattr(GroupWriter, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(*sources, tmp_path / "out.zarr")
    monkeypatch.setattr(GroupWriter, "commit", commit)
    again = merge(*sources, tmp_path / "out.zarr")
    assert again.skipped == stop
    assert files(tmp_path / "out.zarr") == files(whole)
    third = merge(*sources, tmp_path / "out.zarr")
    assert third.written == 0
    assert len(open_store(tmp_path / "out.zarr").provenance) == 3


def test_renumbered_runs_that_both_count_from_zero(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", [0, 1]), make(tmp_path / "b", [5, 6])
    Hostile(second).coordinate("latents", "image", np.array([0, 1]))
    with pytest.raises(
        TaqError, match=r"latents: both \S+/a and \S+/b have image 0, 1; --renumber"
    ):
        merge(first, second, tmp_path / "out", groups=["latents"])
    merge(first, second, tmp_path / "out", groups=["latents"], renumber=True)
    out = zarr.open_group(tmp_path / "out", mode="r")["latents"]
    assert out["image"][...].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(out["x"][2:], zarr.open_group(second)["latents/x"][...])


def test_duplicates(tmp_path: Path) -> None:
    first = make(tmp_path / "a", [0, 1, 2])
    second = make(tmp_path / "b", [2, 3])
    with pytest.raises(TaqError, match=r"image 2 of \S+/b is in \S+/a too"):
        merge(first, second, tmp_path / "refused", renumber=True)
    merge(first, second, tmp_path / "skipped", duplicates="skip")
    out = zarr.open_group(tmp_path / "skipped", mode="r")
    assert {out[g]["image"][...].ravel().tolist() == [0, 1, 2, 3] for g in GROUPS} == {True}
    merge(first, second, tmp_path / "kept", duplicates="keep", renumber=True)
    out = zarr.open_group(tmp_path / "kept", mode="r")
    assert out["latents/image"][...].tolist() == [0, 1, 2, 5, 6]
    site = out["activations/mlp.fc1"]
    assert site["image"][...].tolist() == [[0], [1], [2], [5], [6]]
    np.testing.assert_array_equal(site["histogram"][3], site["histogram"][2])


def test_duplicates_are_seen_without_latents(tmp_path: Path) -> None:
    """Equal extrema throughout are the same observation, whatever its number."""
    stores = []
    for name, ids in (("a", [0, 1]), ("b", [1, 2])):
        with create_store(tmp_path / name) as store:
            write_activations(store, ids, RUN)
        stores.append(tmp_path / name)
    with pytest.raises(TaqError, match=r"image 1 of \S+/b is in \S+/a"):
        merge(*stores, tmp_path / "out", renumber=True)
    assert not (tmp_path / "out").exists()


def test_settings_that_differ_are_all_named(tmp_path: Path) -> None:
    first = make(tmp_path / "a", [0])
    second = make(tmp_path / "b", [1], run={"model": "large", "use_t5": False, "seed": 9})
    with pytest.raises(LayoutError) as caught:
        merge(first, second, tmp_path / "out")
    message = str(caught.value)
    assert "run.model ('small' and 'large')" in message
    assert "run.use_t5 (True and False)" in message
    assert "seed" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("group", "coordinate"), [("latents", "sigma"), ("activations/mlp.fc1", "layer")]
)
def test_coordinates_that_differ(tmp_path: Path, group: str, coordinate: str) -> None:
    first, second = make(tmp_path / "a", [0]), make(tmp_path / "b", [1])
    values = open_store(second)[group][coordinate].values
    Hostile(second).coordinate(group, coordinate, values[::-1].tolist())
    with pytest.raises(LayoutError, match=rf"they differ in {group}: {coordinate};"):
        merge(first, second, tmp_path / "out", groups=[group])


def test_layouts_of_histograms_that_differ(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", [0]), tmp_path / "b"
    coarse = Layout("float16", 1)
    with create_store(second) as store:
        for template in activations_templates(replace(SHAPE, images=1), layout=coarse):
            if template.path != SITE:
                continue
            group = store.group(replace(template, attrs={"run": RUN}))
            batch = [raw_activations(SHAPE, image=7, step=s) for s in SHAPE.stats_steps]
            write_batch(group, 0, batch, coarse)
    with pytest.raises(LayoutError, match=r"bin \(248 and 124\), variable histogram"):
        merge(first, second, tmp_path / "out", groups=["activations/mlp.fc1"])


def test_groups_that_only_one_has(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a", [0]), make(tmp_path / "b", [1], blocks=False)
    with pytest.raises(MissingError, match=r"no group 'blocks/img'; name the groups .* --group"):
        merge(first, second, tmp_path / "out")
    done = merge(first, second, tmp_path / "out", groups=["latents"])
    assert list(done.groups) == ["latents"]
    with pytest.raises(MissingError, match="no group 'latent' to merge"):
        merge(first, second, tmp_path / "out", groups=["latent"])


def test_targets_that_are_something_else(sources: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the target is one of the sources"):
        merge(*sources, sources[0])
    other = make(tmp_path / "c", [9])
    before = files(other)
    with pytest.raises(StoreError, match="the target holds something else"):
        merge(*sources, other)
    assert files(other) == before
    with pytest.raises(StoreError, match="no store here"):
        merge(sources[0], tmp_path / "nothing", tmp_path / "out")


def test_damage_in_a_source_is_not_copied(sources: tuple[Path, Path], tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(sources[1], tmp_path / "b"))
    path = next((damaged / "latents/x/c").rglob("0"))
    while path.is_dir():
        path = path / "0"
    data = bytearray(path.read_bytes())
    data[17] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged shard"):
        merge(sources[0], damaged, tmp_path / "out", groups=["latents"])
    mask = zarr.open_group(tmp_path / "out", mode="r")["latents/written"][...]
    assert mask.tolist() == [True, True, True, False, False]


def test_unfinished_items_are_left_out(tmp_path: Path) -> None:
    write_plain_latents(tmp_path / "a", [0, 1], only=[0])
    write_plain_latents(tmp_path / "b", [2])
    merge(tmp_path / "a", tmp_path / "b", tmp_path / "out")
    out = zarr.open_group(tmp_path / "out", mode="r")["latents"]
    assert out["image"][...].tolist() == [0, 2]
    assert out["written"][...].all()


def test_a_store_in_memory(sources: tuple[Path, Path]) -> None:
    done = merge(*sources, "memory://merged-here")
    again = merge(*sources, "memory://merged-here")
    assert again.written == 0
    assert again.skipped == done.written > 0
