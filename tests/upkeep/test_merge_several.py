"""More than two stores become one in one pass over each; two that disagree are both named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import taqstore
from support.cli_runner import Runner
from support.merge_runs import GROUPS, RUN, make
from support.same_stores import assert_same_stores
from support.sensitivity_store import TARGETS, write_sensitivities
from taqstore.errors import LayoutError, MisuseError, TaqError
from taqstore.place.local_backend import LocalBackend
from taqstore.store.group_writer import GroupWriter
from taqstore.upkeep import merge, verify_store

SITES = [*TARGETS["site"]]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    ids = {"a": [0, 1], "b": [2], "c": [4, 3], "d": [7]}
    return [make(folder / name, images) for name, images in ids.items()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("whole") / "whole", [0, 1, 2, 4, 3, 7])


def test_all_are_one_run_and_each_file_is_read_once(
    sources: list[Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = LocalBackend.read, Counter[str]()

    def counted(self: LocalBackend, key: str) -> bytes | None:
        if "/c/" in key and "items" not in key:
            seen[f"{self.folder}/{key}"] += 1
        return read(self, key)

    monkeypatch.setattr(LocalBackend, "read", counted)
    merge(*sources, tmp_path / "out")
    monkeypatch.undo()
    assert assert_same_stores(tmp_path / "out", whole) > 25
    data = {key: n for key, n in seen.items() if "/x/" in key or "/histogram/" in key}
    assert len(data) > 30
    assert {*data.values()} == {1}
    assert not verify_store(tmp_path / "out").damage
    records = taqstore.open_store(tmp_path / "out").provenance
    assert [r["command"] for r in records] == ["collect"] * 4 + ["merge"]
    assert [i["name"] for i in records[-1]["inputs"]] == ["a", "b", "c", "d"]


def test_one_pass_is_pairs_after_each_other(sources: list[Path], tmp_path: Path) -> None:
    merge(*sources[:2], tmp_path / "ab")
    merge(tmp_path / "ab", sources[2], tmp_path / "abc")
    merge(*sources[:3], tmp_path / "at-once")
    assert assert_same_stores(tmp_path / "at-once", tmp_path / "abc") > 25


def test_each_store_is_numbered_after_those_before_it(tmp_path: Path) -> None:
    ids = {"a": [0, 4], "b": [1], "c": [0, 2]}
    stores = [make(tmp_path / name, images) for name, images in ids.items()]
    with pytest.raises(TaqError, match=r"image 0 of \S+/c is in \S+/a too"):
        merge(*stores, tmp_path / "out", renumber=True)
    merge(*stores, tmp_path / "out", renumber=True, duplicates="keep")
    out = taqstore.open_store(tmp_path / "out")
    for path in GROUPS:
        assert out[path]["image"].values.ravel().tolist() == [0, 4, 6, 7, 9]
    assert out.provenance[-1]["parameters"]["offsets"] == [0, 5, 7]


def test_two_that_disagree_are_both_named(sources: list[Path], tmp_path: Path) -> None:
    other = make(tmp_path / "e", [9], run={**RUN, "use_t5": False})
    with pytest.raises(LayoutError, match=r"/a and \S+/e are not of one conf.* run.use_t5"):
        merge(*sources, other, tmp_path / "out")
    again = make(tmp_path / "f", [3])
    with pytest.raises(TaqError, match=r"image 3 of \S+/f is in \S+/c too"):
        merge(*sources, again, tmp_path / "out")
    with pytest.raises(TaqError, match=r"both \S+/c and \S+/f have"):
        merge(*sources, again, tmp_path / "out", duplicates="keep")
    assert not (tmp_path / "out").exists()


def test_three_machines_sensitivities_are_united(tmp_path: Path) -> None:
    parts = {"a": (SITES[:2], (0, 1)), "b": (SITES[1:], (1, 2)), "c": (SITES, (2, 0))}
    stores = [
        write_sensitivities(tmp_path / n, unit="site", formats=["rtn-w4"], targets=t, images=i)
        for n, (t, i) in parts.items()
    ]
    merge(*stores[:2], tmp_path / "ab")
    merge(tmp_path / "ab", stores[2], tmp_path / "abc")
    merge(*stores, tmp_path / "at-once")
    assert assert_same_stores(tmp_path / "at-once", tmp_path / "abc") > 10
    other = write_sensitivities(
        tmp_path / "d", unit="site", formats=["rtn-w4"], images=(2,), scale=2.0
    )
    with pytest.raises(TaqError, match=r"\S+/c and \S+/d differ in \w+ of item 2"):
        merge(*stores, other, tmp_path / "refused")


@pytest.mark.parametrize("stop", [0, 5, 17])
def test_a_remote_target_is_gone_on_with_after_a_kill(
    sources: list[Path], monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    commit, left = GroupWriter.commit, [stop]

    def killed(*arguments: Any) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        commit(*arguments)

    out = f"memory://merge-several-{stop}"
    monkeypatch.setattr(GroupWriter, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(*sources, out)
    monkeypatch.setattr(GroupWriter, "commit", commit)
    with pytest.raises(TaqError, match="holds something else"):
        merge(*sources[:2], out)
    assert merge(*sources, out).skipped == stop
    assert merge(*sources, out).written == 0
    report = verify_store(out)
    assert report.chunks > 60
    assert not report.damage


def test_the_command(taq: Runner, sources: list[Path], tmp_path: Path) -> None:
    assert taq("merge", *sources, tmp_path / "out").code == 0
    assert taqstore.open_store(tmp_path / "out")["latents"].sizes["image"] == 6
    done = taq("merge", sources[0], tmp_path / "new")
    assert done.code == 2
    assert "two stores or more" in done.err
    with pytest.raises(MisuseError, match="two stores or more"):
        merge(sources[0], tmp_path / "new")
    assert not (tmp_path / "new").exists()
