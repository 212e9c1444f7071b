"""What is whole and belongs elsewhere: refused by readers, named by verify, never blessed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from campaign.stores import Values, check_flagged, every_kind, one_kind, same, values_of, write
from taqstore import open_store
from taqstore.errors import StoreError
from taqstore.upkeep.repair import repair_store
from taqstore.upkeep.verify import verify_store

# Latents, streams, and sites with groups below a folder.
TEMPLATES = [t for t in every_kind() if t.path.startswith(("latents", "blocks/img", "act", "chan"))]
Plant = Callable[[Path, Path], None]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A store of every kind; another one like it; the first as it was before it grew."""
    folder = tmp_path_factory.mktemp("stores")
    ours, other, young = (folder / name for name in ("ours.zarr", "other.zarr", "young.zarr"))
    write(young, one_kind([3]))
    shutil.copytree(young, ours)
    write(ours, TEMPLATES)
    write(other, TEMPLATES)
    return ours, other, young


def instead(path: str) -> Plant:
    """Put a file or folder of one store in place of another's."""

    def plant(store: Path, source: Path) -> None:
        target = store / path
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source / path, target)
        else:
            shutil.copyfile(source / path, target)

    return plant


def over(path: str) -> Plant:
    """Copy the files of a folder over another's, whose own files stay."""
    return lambda store, source: shutil.copytree(source / path, store / path, dirs_exist_ok=True)  # type: ignore[return-value]


def moved(path: str, to: str) -> Plant:
    """Put one group of a store in place of another group of it."""

    def plant(store: Path, source: Path) -> None:
        shutil.rmtree(store / to)
        shutil.copytree(store / path, store / to)

    return plant


def exchanged(one: str, two: str) -> Plant:
    def plant(store: Path, source: Path) -> None:
        (store / one).rename(store / "aside")
        (store / two).rename(store / one)
        (store / "aside").rename(store / two)

    return plant


OTHERS = {
    "a group of another store": instead("latents"),
    "a nested group of another store": instead("activations/mlp.fc1"),
    "a document of another store": instead("latents/zarr.json"),
    "records of another store": instead("latents/items"),
    "records of runs of another store": instead("provenance"),
    "groups exchanged": exchanged("latents", "channel_histograms/mlp.fc1"),
    "streams exchanged": exchanged("blocks/img", "activations/mlp.fc1"),
    "one group twice": moved("activations/mlp.fc1", "channel_histograms/mlp.fc1"),
    "the root of another store": instead("zarr.json"),
}
YOUNG = {
    "a group as it was": instead("latents"),
    "a document as it was": instead("latents/zarr.json"),
    "all files as they were": over("latents"),
    "the root as it was": instead("zarr.json"),
}


def check_values(store: Path, expected: Values) -> int:
    """Every flagged item that reads is what was written; how many groups read whole."""
    whole = 0
    for chunks in ("auto", None):
        try:
            opened = open_store(store, chunks=chunks, incomplete=True)  # type: ignore[arg-type]
        except StoreError:
            return 0
        check_flagged(opened, expected)
        for path in sorted({path for path, _ in expected} & set(opened.paths)):
            with suppress(StoreError):
                values = {n: v.values for n, v in opened[path].variables.items()}
                whole += all(same(values[n], v) for (p, n), v in expected.items() if p == path)
    return whole


@pytest.fixture(scope="module")
def expected(stores: tuple[Path, Path, Path]) -> Values:
    """What the first store holds."""
    return values_of(open_store(stores[0], incomplete=True))


@pytest.mark.parametrize("name", [*OTHERS, *YOUNG])
def test_what_belongs_elsewhere(
    stores: tuple[Path, Path, Path], expected: Values, tmp_path: Path, name: str
) -> None:
    ours, other, young = stores
    store = tmp_path / "s.zarr"
    shutil.copytree(ours, store)
    if name in OTHERS:
        OTHERS[name](store, other)
    else:
        YOUNG[name](store, young)
    damage = verify_store(store).damage
    assert damage, "verify calls it whole"
    readable = check_values(store, expected)
    said = repair_store(store, dry_run=True)
    assert repair_store(store) == said
    assert check_values(store, expected) >= readable, "repair took what could be read"
    left = [finding.where for finding in verify_store(store).damage]
    lost = [step.where for step in said if not step.done]
    assert bool(left) == bool(lost), (left, said)
    if "document" in name:
        assert not lost
    gone = {t.path for t in TEMPLATES if any(w.startswith(t.path) for w in (*lost, *left))}
    missing = {t.path for t in TEMPLATES} - set(open_store(store).paths)
    write(store, TEMPLATES, replaced=sorted(gone | missing))
    assert not verify_store(store).damage
    assert check_values(store, expected)


def test_a_folder_that_no_root_lists_is_no_group(
    stores: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    ours, _, _ = stores
    store = tmp_path / "s.zarr"
    shutil.copytree(ours, store)
    shutil.copytree(store / "latents", store / "latents2")
    report = verify_store(store)
    assert not report.damage
    assert any(n.where == "latents2" and "no group of this store" in n.what for n in report.notes)
    assert not repair_store(store)
    assert "latents2" not in open_store(store).paths


def test_a_group_that_is_gone_is_taken_from_the_list(
    stores: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    ours, _, _ = stores
    expected, store = values_of(open_store(ours, incomplete=True)), tmp_path / "s.zarr"
    shutil.copytree(ours, store)
    shutil.rmtree(store / "latents")
    assert [f.where for f in verify_store(store).damage] == ["latents"]
    assert all(step.done for step in repair_store(store))
    assert not verify_store(store).damage
    write(store, TEMPLATES)
    assert check_values(store, expected) == 2 * len(TEMPLATES)
