"""Several groups opened by one change of a store: written once, whole or none, refused before."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from support.builders import latent, latents_template, pooled_template, write_latents
from support.stopped import stopped_before_each
from taqstore import create_store, open_store
from taqstore.errors import LayoutError
from taqstore.metadata import root as roots
from taqstore.place.backend import Backend
from taqstore.place.local_backend import LocalBackend
from taqstore.store.group_writer import GroupWriter
from taqstore.upkeep.verify import verify_store

TOGETHER = [latents_template([3, 1]), pooled_template()]
PATHS = sorted(template.path for template in TOGETHER)


def test_the_root_is_written_once_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, put = create_store(tmp_path / "s.zarr"), list[str]()
    monkeypatch.setattr(LocalBackend, "_appeared_in", lambda self, folder: put.append(folder))
    made = writer.groups(TOGETHER)
    assert sorted(made) == PATHS
    assert put.count(str(tmp_path.resolve() / "s.zarr")) == 1 + len(
        {p.split("/")[0] for p in PATHS}
    )


def test_stopped_anywhere_there_are_none_and_they_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    create_store(store).finish()
    for stop in stopped_before_each(lambda: create_store(store).groups(TOGETHER), monkeypatch):
        assert list(open_store(store)) == []
        again = shutil.copytree(store, tmp_path / f"{stop}.zarr")
        with create_store(again) as writer:
            writer.groups(TOGETHER)
        assert list(roots.read_root(_backend(again), "").groups) == PATHS
        assert not verify_store(again).damage
    assert stop > 10


def test_one_that_differs_refuses_all_before_any_changes(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    write_latents(store, [3, 1])
    other = latents_template([3], steps=4)
    with create_store(store) as writer, pytest.raises(LayoutError, match="x shape"):
        writer.groups([TOGETHER[1], other])
    assert list(roots.read_root(_backend(store), "").groups) == ["latents"]
    assert not (store / TOGETHER[1].path).exists()


def _backend(store: Path) -> Backend:
    return LocalBackend(store)


def test_items_of_several_groups_are_flagged_together_after_the_data_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two flushes of folders for all of them, and no flag before the first one is over."""
    with create_store(tmp_path / "s.zarr") as writer:
        groups = writer.groups(
            [latents_template([3, 1]), replace(latents_template([5]), path="others")]
        )
        happened, flush, put = list[str](), LocalBackend.flush, LocalBackend.write_all

        def flushing(self: LocalBackend) -> None:
            flush(self)
            happened.append("flushed")

        def flagging(self: LocalBackend, files: Mapping[str, bytes]) -> None:
            happened.extend(sorted(files))
            put(self, files)

        for number, group in enumerate(groups.values()):
            group.put("x", (0, 0, 0, 0, 0), latent(number))
        with monkeypatch.context() as patch:
            patch.setattr(LocalBackend, "flush", flushing)
            patch.setattr(LocalBackend, "write_all", flagging)
            GroupWriter.commit_all({group: [(0,)] for group in groups.values()})
        flags = [f"{path}/items/commit/c.0.0" for path in sorted(groups)]
        assert happened == ["flushed", *flags, "flushed"]
    assert open_store(tmp_path / "s.zarr").mask("latents").tolist() == [True, False]
    assert open_store(tmp_path / "s.zarr").mask("others").tolist() == [True]
