"""What is served is the store as it is now; what is kept belongs to a state of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.ingest import ingest

import taqstore
from taqstore.analysis import held
from taqstore.errors import MissingError, StoreError
from taqstore.serve.served.service import Service
from taqstore.statistics.histogram import Layout
from taqstore.store.writer import create_store
from taqstore.testing import RunShape, make_run_folder, make_store, raw_activations
from taqstore.testing.store import activations_templates, write_batch

SHAPE = RunShape(images=4, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)
LAYOUT = Layout("float16", 4)
GROUP = "activations/mlp.fc2"


def write(path: Path, images: range) -> None:
    with create_store(path) as store:
        writers = [store.group(one) for one in activations_templates(SHAPE, layout=LAYOUT)]
        for image in images:
            batch = [raw_activations(SHAPE, seed=0, image=image, step=s) for s in SHAPE.stats_steps]
            for writer in writers:
                write_batch(writer, image, batch, LAYOUT)


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    write(tmp_path / "run.zarr", range(1))
    return tmp_path / "run.zarr"


def test_an_item_is_seen_once_it_is_flagged_while_its_writer_goes_on(growing: Path) -> None:
    service = Service([str(growing)])
    assert service.store("run.zarr")[GROUP].sizes["batch"] == 1
    versions = [service.version("run.zarr")]
    with create_store(growing) as store:
        writers = [store.group(one) for one in activations_templates(SHAPE, layout=LAYOUT)]
        for image in range(1, 4):
            batch = [raw_activations(SHAPE, seed=0, image=image, step=s) for s in SHAPE.stats_steps]
            for writer in writers:
                write_batch(writer, image, batch, LAYOUT)
            found = service.store("run.zarr")[GROUP]
            assert found.sizes["batch"] == image + 1
            versions.append(service.version("run.zarr"))
            expected = held(taqstore.open_store(growing)[GROUP], moments=False)
            xr.testing.assert_equal(service.held("run.zarr", GROUP), expected)
    versions.append(service.version("run.zarr"))
    assert len(set(versions)) == len(versions)
    assert service.version("run.zarr") == versions[-1]


def test_a_group_that_is_made_is_seen_and_others_are_not_read_again(growing: Path) -> None:
    service = Service([str(growing)])
    before = service.store("run.zarr")
    opened = before[GROUP]
    mask = before.mask(GROUP)
    make_run = make_run_folder(growing.with_name("run"), shape=SHAPE)
    ingest([make_run], growing)
    after = service.store("run.zarr")
    assert set(after) > set(before)
    assert after.mask(GROUP) is mask
    assert before[GROUP] is opened
    assert after[GROUP].attrs["store_digest"] == taqstore.open_store(growing).digest


def test_what_is_kept_goes_with_the_state_it_belongs_to(growing: Path) -> None:
    service = Service([str(growing)])

    def ask() -> int:
        return service.kept(
            "run.zarr", ("batches",), lambda: service.store("run.zarr")[GROUP].sizes["batch"]
        )

    assert (ask(), ask()) == (1, 1)
    write(growing, range(1, 3))
    assert ask() == 3
    for number in range(3):
        assert service.kept("run.zarr", ("key", number), lambda n=number: n) == number


def test_nothing_changes_while_nothing_is_written(growing: Path) -> None:
    service = Service([str(growing)])
    version, store = service.version("run.zarr"), service.store("run.zarr")
    made: list[int] = []
    for _ in range(3):
        assert service.version("run.zarr") == version
        assert service.store("run.zarr") is store
        service.kept("run.zarr", ("once",), lambda: made.append(1))
    assert len(made) == 1
    assert Service([str(growing)]).version("run.zarr") == version


def test_a_held_group_is_ones_own(growing: Path) -> None:
    service = Service([str(growing)])
    first = service.held("run.zarr", GROUP)
    first["more"] = ("step", np.zeros(first.sizes["step"]))
    assert "more" not in service.held("run.zarr", GROUP)
    assert "min" not in first
    assert "min" in service.held("run.zarr", GROUP, channels=True)


def test_names_are_those_of_the_addresses(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        make_store(tmp_path / folder / "run.zarr", shape=SHAPE)
    given = [str(tmp_path / folder / "run.zarr") for folder in ("a", "b", "c")]
    service = Service(given)
    assert service.names == ("run.zarr", "run.zarr-2", "run.zarr-3")
    assert [service.address(name) for name in service.names] == given


def test_what_is_not_there_is_said(tmp_path: Path, growing: Path) -> None:
    with pytest.raises(StoreError, match="no store here"):
        Service([str(growing), str(tmp_path / "none.zarr")])
    with pytest.raises(MissingError, match=r"no store 'rum.zarr'.*run.zarr"):
        Service([str(growing)]).store("rum.zarr")


def test_a_store_elsewhere_is_looked_at_now_and_then(
    growing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    from taqstore.serve.served import stores

    there = fsspec.filesystem("memory")
    there.put(str(growing), "/bucket/run.zarr", recursive=True)
    service = Service(["memory://bucket/run.zarr"])
    assert service.store("run.zarr")[GROUP].sizes["batch"] == 1
    version = service.version("run.zarr")
    write(growing, range(1, 3))
    there.rm("/bucket/run.zarr", recursive=True)
    there.put(str(growing), "/bucket/run.zarr", recursive=True)
    assert service.version("run.zarr") == version  # looked at a moment ago
    monkeypatch.setattr(stores, "_SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(stores, "_LOOK_SHARE", 0.0)
    for served in service._served.values():
        served._next_look = 0.0
    assert service.version("run.zarr") != version
    assert service.store("run.zarr")[GROUP].sizes["batch"] == 3
    there.rm("/bucket", recursive=True)
