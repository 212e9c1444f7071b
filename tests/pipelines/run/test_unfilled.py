"""A run that fails before its first item is whole refuses no corrected one."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.ingest import ingest
from taqstore.pipelines.models.rounding import Settings

from support.builders import latents_template, write_latents
from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store, without
from support.thinned import crossed
from taqstore import create_store, open_store
from taqstore.errors import LayoutError, StoreError
from taqstore.layout.template import Template
from taqstore.run.mode import Mode
from taqstore.run.outcome import Outcome
from taqstore.run.share import Shard
from taqstore.store.group_writer import GroupWriter
from taqstore.testing import RunShape, make_latents
from taqstore.upkeep.verify import verify_store

Run = Callable[..., Outcome]
NEW = Mode()
SMALL = RunShape(images=2, steps=2, latent=(3, 2), channels=4)
QUICK = Settings(bits=3, iterations=2, batch_size=4)


def _generate(store: Path, folder: Path, right: bool, mode: Mode = NEW) -> Outcome:
    size = (8, 8) if right else (8, 4)
    request = Request("tiny", folder / "prompts.txt", 1, steps=2 + right, latent_size=size)
    return generate(store, replace(request, local_ckpt=folder / "w.safetensors"), mode=mode)


def _cache(store: Path, folder: Path, right: bool, mode: Mode = NEW) -> Outcome:
    return cache(store, stride=1 + right, local_ckpt=folder / "w.safetensors", mode=mode)


def _collect(store: Path, folder: Path, right: bool, mode: Mode = NEW) -> Outcome:
    return collect(store, stride=1 + right, local_ckpt=folder / "w.safetensors", mode=mode)


def _adaround(store: Path, folder: Path, right: bool, mode: Mode = NEW) -> Outcome:
    settings = replace(QUICK, bits=3 + right)
    local_ckpt = folder / "w.safetensors"
    return adaround(store, settings=settings, chosen=["mm0"], local_ckpt=local_ckpt, mode=mode)


def _ingest(store: Path, folder: Path, right: bool, mode: Mode = NEW) -> Outcome:
    source = store.with_name(f"source-{right}")
    if not source.exists():
        make_latents(source, shape=replace(SMALL, latent=(4, 4) if right else (3, 2)))
    return ingest([source], store, workers=1, mode=mode)


# Each with the groups it needs, by the word before the first slash.
RUNS: dict[str, tuple[Run, tuple[str, ...]]] = {
    "generate": (_generate, ()),
    "cache": (_cache, ("latents",)),
    "collect": (_collect, ("latents",)),
    "adaround": (_adaround, ("latents", "blocks", "activations")),
    "ingest": (_ingest, ()),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("unfilled"), TINY)


@pytest.fixture(scope="module")
def cleans(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Stores that the right run alone has written, each made once; to be read only."""

    @functools.cache
    def made(name: str) -> Path:
        run, needs = RUNS[name]
        clean = _store(filled, tmp_path_factory.mktemp(f"clean-{name}"), needs)
        run(clean, filled.parent, True)
        return clean

    return made


def _store(filled: Path, folder: Path, needs: tuple[str, ...]) -> Path:
    """A store that has what a pipeline starts from, and nothing that it makes."""
    path = folder / "run.zarr"
    if needs:
        shutil.copytree(filled, path)
        for other in [p for p in open_store(path) if p.split("/")[0] not in needs]:
            without(path, other)
    return path


@needs_models
@pytest.mark.parametrize(("error", "name"), crossed([KeyboardInterrupt, StoreError], RUNS))
def test_corrected_parameters_are_taken_after_a_first_item_failed(
    name: str, error: type[BaseException], filled: Path, cleans: Callable[[str], Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, needs = RUNS[name]
    store = _store(filled, tmp_path, needs)

    def fail(items: object) -> None:
        raise error("before the first flag")

    with monkeypatch.context() as patch:
        patch.setattr(GroupWriter, "commit_all", staticmethod(fail))
        with pytest.raises(error):
            run(store, filled.parent, False)
    outcome = run(store, filled.parent, True)
    assert outcome.written > 0
    assert outcome.problems == []
    assert not verify_store(store).damage
    groups = [path for path in outcome.groups if outcome.groups[path].written]
    # The same as if the failed run had never been.
    opened, clean = open_store(store), open_store(cleans(name))
    for path in groups:
        expected, found = clean[path], opened[path]
        assert found.sizes == expected.sizes
        for variable in expected.variables:
            if variable != "seconds":
                assert np.array_equal(
                    found[variable].values, expected[variable].values,
                    equal_nan=expected[variable].dtype.kind == "f",
                ), (path, variable)  # fmt: skip


@needs_models
@pytest.mark.parametrize(
    ("mode", "name"), crossed([Mode(resume=True), Mode(shard=Shard(0, 3))], RUNS)
)
def test_a_worker_with_other_parameters_leaves_a_plan_as_it_is(
    name: str, mode: Mode, filled: Path, tmp_path: Path
) -> None:
    run, needs = RUNS[name]
    store = _store(filled, tmp_path, needs)
    run(store, filled.parent, True, Mode(groups_only=True))
    planned = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    with pytest.raises(LayoutError, match="force"):
        run(store, filled.parent, False, mode)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == planned
    assert run(store, filled.parent, True, mode).problems == []


@needs_models
def test_a_whole_item_is_never_replaced_by_other_parameters(filled: Path, tmp_path: Path) -> None:
    for name, (run, needs) in RUNS.items():
        folder = tmp_path / name
        folder.mkdir()
        store = _store(filled, folder, needs)
        run(store, filled.parent, True)
        before = {path: open_store(store).mask(path).tolist() for path in open_store(store)}
        with pytest.raises(LayoutError):
            run(store, filled.parent, False)
        assert {p: open_store(store).mask(p).tolist() for p in open_store(store)} == before


def _unlike() -> Template:
    return latents_template([7], steps=3)


def test_a_group_that_another_process_works_on_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    with create_store(path) as writer:
        group = writer.group(latents_template([7]))
        with group.claim((0,)) as held:
            assert held
            with create_store(path) as other:
                other.remove_unfilled(["latents"], among=["latents"])
                assert other.node("latents") is not None
        with create_store(path) as other:
            other.remove_unfilled(["latents"], among=["latents"])
            assert other.node("latents") is None
            other.group(_unlike())
        # Whoever had it open may not write what does not fit any more.
        with pytest.raises(StoreError, match="replaced"):
            group.written()


def test_a_group_with_a_whole_item_or_damage_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    write_latents(path, [1, 2])
    with create_store(path) as writer:
        writer.remove_unfilled(["latents"], among=["latents"])
    assert open_store(path)["latents"].sizes["image"] == 2
    with create_store(tmp_path / "d.zarr") as writer:
        writer.group(latents_template([7]))
    document = tmp_path / "d.zarr" / "latents" / "x" / "zarr.json"
    document.write_bytes(document.read_bytes()[:-9])
    with create_store(tmp_path / "d.zarr") as writer:
        writer.remove_unfilled(["latents"], among=["latents"])
    assert document.exists()
