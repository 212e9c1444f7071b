"""Several stores opened as one are, bit for bit, the store that merge would make of them."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

import taqstore
from support.merge_runs import GROUPS, RUN, SITE, make, write_activations
from support.same_stores import assert_same_bits
from support.sensitivity_store import TARGETS, write_sensitivities
from taqstore import open_store
from taqstore.errors import LayoutError, MissingError, MisuseError, TaqError
from taqstore.place.local_backend import LocalBackend
from taqstore.query import analyze
from taqstore.store.writer import create_store
from taqstore.testing import RunShape, make_store
from taqstore.upkeep import merge

SITES = [*TARGETS["site"]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [make(folder / name, ids) for name, ids in {"a": [0, 1], "b": [3], "c": [9, 4]}.items()]


@pytest.fixture(scope="module")
def merged(sources: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "out"
    merge(*sources, out)
    return out


def united(folder: Path) -> list[Path]:
    """Sensitivities of three machines: other targets, other images, some of both shared."""
    parts = {"a": (SITES[:2], (0, 1)), "b": (SITES[1:], (1, 2)), "c": (SITES[2:], (0, 5))}
    return [
        write_sensitivities(folder / name, unit="site", formats=["rtn-w4"], targets=targets,
                            images=images)
        for name, (targets, images) in parts.items()
    ]  # fmt: skip


def assert_same(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    assert {**ours.attrs, "store_digest": ""} == {**theirs.attrs, "store_digest": ""}
    assert ours.sizes == theirs.sizes
    assert dict(ours.chunks) == dict(theirs.chunks)
    assert [*ours.variables] == [*theirs.variables]
    for name in theirs.variables:
        assert ours[name].attrs == theirs[name].attrs
        assert_same_bits(ours[name].values, theirs[name].values, name)


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize("chunks", [None, "auto"])
def test_every_group_is_that_of_the_merged_store(
    sources: list[Path], merged: Path, chunks: Any, incomplete: bool
) -> None:
    ours = open_store(sources, chunks=chunks, incomplete=incomplete)
    theirs = open_store(merged, chunks=chunks, incomplete=incomplete)
    assert list(ours) == list(theirs) == list(GROUPS)
    for path in theirs:
        assert_same(ours[path], theirs[path])
        np.testing.assert_array_equal(ours.mask(path), theirs.mask(path))
        assert ours.stored_bytes(path) == theirs.stored_bytes(path)


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_united_groups_are_those_of_the_merged_store(tmp_path: Path, chunks: Any) -> None:
    stores = united(tmp_path)
    merge(*stores, tmp_path / "out")
    ours, theirs = (open_store(s, chunks=chunks) for s in (stores, tmp_path / "out"))
    assert list(ours) == list(theirs)
    for path in theirs:
        assert_same(ours[path], theirs[path])


def test_selections_of_all_kinds(tmp_path: Path, sources: list[Path], merged: Path) -> None:
    """Orthogonal, pointwise, reversed, transposed and repeated; of rows, items and within them."""
    stores = united(tmp_path)
    merge(*stores, tmp_path / "out")
    pairs = [(sources, merged, p) for p in GROUPS]
    pairs.append((stores, tmp_path / "out", "sensitivity/site/rtn-w4"))
    rng = np.random.default_rng(5)
    for several, one, path in pairs:
        ours, theirs = (open_store(s, chunks=None)[path] for s in (several, one))
        for name in theirs.data_vars:
            sizes = dict(theirs[name].sizes)
            for _ in range(12):
                chosen = {d: _selection(n, rng) for d, n in sizes.items() if rng.random() < 0.7}
                mine, other = (ds[name].isel(chosen) for ds in (ours, theirs))
                order = [*rng.permutation([str(d) for d in other.dims])]
                assert_same_bits(mine.transpose(*order), other.transpose(*order), (name, chosen))
                again = {d: slice(None, None, -1) for d in other.dims[:2]}
                assert_same_bits(mine.isel(again), other.isel(again), (name, chosen))
            points = xr.DataArray(rng.integers(0, 50, 7), dims="point")
            for dims in ([*sizes][:1], [*sizes][1:2], [*sizes][:2], [*sizes][1:3], [*sizes]):
                at = {d: points % sizes[d] for d in dims}
                assert_same_bits(ours[name].isel(at), theirs[name].isel(at), (name, dims))


def _selection(size: int, rng: np.random.Generator) -> Any:
    step = int(rng.choice([1, 2, -1]))
    return [
        int(rng.integers(-size, size)),
        slice(None, None, step),
        slice(int(rng.integers(0, size)), None),
        rng.integers(0, size, 4),
        slice(0, 0),
    ][int(rng.integers(5))]


def test_nothing_but_labels_is_read_when_stores_are_opened(
    sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = LocalBackend.read
    seen: list[str] = []

    def told(self: LocalBackend, key: str) -> bytes | None:
        seen.append(key)
        return read(self, key)

    data = Path(sources[1], SITE, "tensor_min", "c")
    shutil.move(data, data.with_name("away"))
    try:
        monkeypatch.setattr(LocalBackend, "read", told)
        opened = open_store(sources)
        assert opened["latents"].sizes["image"] == 5
        assert not [key for key in seen if "/x/c/" in key or "/histogram/c" in key]
    finally:
        shutil.move(data.with_name("away"), data)


def test_provenance_is_of_all(sources: list[Path], merged: Path) -> None:
    ours, theirs = open_store(sources).provenance, open_store(merged).provenance
    assert [r["id"] for r in ours] == [r["id"] for r in theirs[:-1]]
    assert len(open_store([sources[0], *sources], duplicates="skip", renumber=True).provenance) == 3


def test_another_process_reads_them(sources: list[Path], merged: Path) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        ours = open_store(sources)[SITE]["histogram"].sum("batch").compute()
    assert_same_bits(ours, open_store(merged)[SITE]["histogram"].sum("batch"))
    mapped = open_store(sources, chunks=None)["latents"]
    assert pickle.loads(pickle.dumps(mapped)).identical(mapped)


def test_analyses_layers_names_and_figures(tmp_path: Path) -> None:
    shape = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
    stores = [make_store(tmp_path / f"{seed}", shape=shape, seed=seed) for seed in range(3)]
    groups = [p for p in open_store(stores[0]) if p.partition("/")[0] in ("latents", "activations")]
    merge(*stores, tmp_path / "out", groups=groups, renumber=True)
    ours = open_store(stores, groups=groups, renumber=True)
    theirs = open_store(tmp_path / "out")
    # Every site is read by one analysis; what an analysis reads does not hang on the site.
    for word in ("scales", "outliers", "enough", "temporal"):
        some = [] if word == "scales" else ["mlp.fc2"]
        mine, other = (analyze(word, s, sites=some) for s in (ours, theirs))
        assert list(mine) == list(other)
        for site in other:
            assert mine[site].drop_attrs().identical(other[site].drop_attrs()), (word, site)
    assert_same(ours.layer("mm_00_img.mlp.fc2"), theirs.layer("mm_00_img.mlp.fc2"))
    assert ours.name("mm_00_img") == "mm0.img"
    names = []
    for store, folder in ((ours, "p"), (theirs, "q")):
        written, _ = taqstore.plot.draw.draw(
            "trajectories", store, tmp_path / folder, group="activations/mlp.fc2"
        )
        names.append({p.name: p.read_bytes() for p in written if p.suffix == ".csv"})
    assert names[0] == names[1] != {}


def test_what_merge_refuses_is_refused(tmp_path: Path) -> None:
    first = make(tmp_path / "a", [0, 1])
    same = make(tmp_path / "b", [2])
    other = make(tmp_path / "c", [3], run={**RUN, "model": "large"})
    again = make(tmp_path / "d", [1, 5])
    with pytest.raises(LayoutError, match=r"/a and \S+/c are not of one configuration"):
        open_store([first, same, other])
    with pytest.raises(TaqError, match=r"image 1 of \S+/d is in \S+/a too"):
        open_store([same, first, again])
    skipped = open_store([same, first, again], duplicates="skip")
    assert skipped["latents"]["image"].values.tolist() == [2, 0, 1, 5]
    with pytest.raises(TaqError, match=r"both \S+/a and \S+/d have batch 1; --renumber"):
        open_store([same, first, again], duplicates="keep", groups=[SITE])
    assert (
        open_store([first, again], duplicates="keep", renumber=True)["latents"].sizes["image"] == 4
    )


def test_images_are_told_apart_without_latents(tmp_path: Path) -> None:
    for name, ids in (("a", [0, 1]), ("b", [1, 2])):
        with create_store(tmp_path / name) as store:
            write_activations(store, ids, RUN)
    with pytest.raises(TaqError, match=r"image 1 of \S+/b is in \S+/a too"):
        open_store([tmp_path / "a", tmp_path / "b"], renumber=True)


def test_a_group_that_one_lacks_is_left_out_and_named(tmp_path: Path) -> None:
    stores = [make(tmp_path / "a", [0]), make(tmp_path / "b", [1], blocks=False)]
    opened = open_store(stores)
    assert list(opened) == [SITE, "latents"]
    assert opened.notes == [f"blocks/img is not of {stores[1]}; left out"]  # type: ignore[attr-defined]
    with pytest.raises(MissingError, match=rf"{stores[1]}: no group 'blocks/img'"):
        opened["blocks/img"]
    with pytest.raises(MissingError, match="no group 'blocks/img'"):
        open_store(stores, groups=["blocks/img"])
    with pytest.raises(MissingError, match="latents"):
        opened["latent"]


def test_what_was_written_since_is_seen(tmp_path: Path) -> None:
    stores = [make(tmp_path / "a", [0], blocks=False), make(tmp_path / "b", [1], blocks=False)]
    opened = open_store(stores)
    before = opened.digest, opened["latents"].sizes["image"]
    make(stores[1], [1, 2], blocks=False)
    opened.refresh("latents")
    assert opened["latents"]["image"].values.tolist() == [0, 1, 2]
    assert (opened.digest, 2) != before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: open_store([]), "no store is named"),
        (lambda store: open_store(store, renumber=True), "are of several stores"),
        (lambda store: create_store(open_store([store, store], duplicates="skip").location),
         "several stores"),
    ],
)  # fmt: skip
def test_misuse(sources: Sequence[Path], call: Any, message: str) -> None:
    with pytest.raises(TaqError, match=message):
        call(sources[0])
    assert issubclass(MisuseError, TaqError)
