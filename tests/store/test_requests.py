"""How many requests a question takes of a store in a bucket; its answer is the local one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import dask
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from support.block_store import write_blocks
from support.builders import latents_template, write_latents
from support.s3_server import S3Server
from support.uploaded import uploaded
from taqstore import create_store, open_store
from taqstore.cli import cli
from taqstore.errors import StoreError
from taqstore.export import export
from taqstore.kinds import iter_batches, open_block
from taqstore.testing import RunShape, make_run_folder, make_store

SITE = "activations/mlp.fc2"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Stores of so many images, each made once; nothing is written into them."""
    folder = tmp_path_factory.mktemp("made")

    def of(images: int) -> Path:
        store = folder / f"{images}.zarr"
        return store if store.exists() else make_store(store, shape=RunShape(images=images))

    return of


@pytest.fixture
def observed(made: Callable[[int], Path], bucket: str) -> tuple[Path, str]:
    """A batch of activations, here and in a bucket."""
    return made(1), uploaded(made(1), f"{bucket}/s.zarr")


def test_opening_a_store_and_a_group(observed: tuple[Path, str], s3: S3Server) -> None:
    local, address = observed
    with s3.counted() as count:
        found = open_store(address)[SITE]
    assert count.total <= 4, count
    assert count["HEAD"] == 0
    xr.testing.assert_identical(found.load(), open_store(local)[SITE].load())


QUESTIONS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "a layer": lambda group: group[["min", "max"]].isel(layer=1),
    "a step": lambda group: group[["min", "max"]].isel(step=0),
    "absmax of the rollup": lambda group: np.abs(group[["tensor_min", "tensor_max"]]).max(),
    "parts of two files": lambda group: group[["min", "max"]].isel(layer=[0, 2]).max("step"),
    "counted": lambda group: group[["histogram"]].isel(layer=0, step=slice(None, None, 2)),
}


@pytest.mark.parametrize("chunks", ["auto", None])
@pytest.mark.parametrize("asked", QUESTIONS)
def test_a_question_of_an_open_group(
    observed: tuple[Path, str], s3: S3Server, asked: str, chunks: str | None
) -> None:
    local, address = observed
    group = open_store(address, chunks=chunks)[SITE]  # type: ignore[arg-type]
    with s3.counted() as count:
        found = QUESTIONS[asked](group).load()
    assert 0 < count.total <= 2, count
    assert count["HEAD"] == 0
    xr.testing.assert_identical(found, QUESTIONS[asked](open_store(local)[SITE]).load())


def test_blocks_that_share_a_file_fetch_it_once(observed: tuple[Path, str], s3: S3Server) -> None:
    group = open_store(observed[1], chunks="auto")[SITE]
    layers = [group["max"].isel(layer=layer).max() for layer in range(group.sizes["layer"])]
    with s3.counted() as count:
        found = dask.compute(*layers)
    assert count.total == 1, count
    assert [float(one) for one in found] == group["max"].max(
        ("batch", "step", "channel")
    ).values.tolist()


def test_a_minibatch(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    local = write_blocks(tmp_path / "s.zarr")
    address = uploaded(local, f"{bucket}/s.zarr")
    with s3.counted() as count:
        found = open_block(address, "mm0", staging=0).read([0, 3, 5, 7])
    assert count.total <= 20, count  # 4 images: each has a file of pooled conditioning
    assert count["HEAD"] == 0
    expected = open_block(local, "mm0").read([0, 3, 5, 7])
    for name, values in expected.inputs.items():
        assert found.inputs[name].tobytes() == values.tobytes()
    for name, values in expected.targets.items():
        assert found.targets[name].tobytes() == values.tobytes()


def test_iterations_ask_for_nothing_twice(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    local = write_blocks(tmp_path / "s.zarr")
    totals = []
    for iterations in (20, 120):
        address = uploaded(local, f"{bucket}/{iterations}.zarr")
        with (
            s3.counted() as count,
            closing(iter_batches(address, "mm0", batch_size=3)) as batches,
        ):
            got = list(islice(batches, iterations))
        totals.append(count.total)
    assert totals[0] == totals[1]
    with closing(iter_batches(local, "mm0", batch_size=3)) as batches:
        for batch, expected in zip(got, batches, strict=False):
            assert batch.inputs["img"].tobytes() == expected.inputs["img"].tobytes()
            assert batch.step.tolist() == expected.step.tolist()


def test_a_whole_document(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    from taqstore.pipelines.ingest import ingest

    make_run_folder(tmp_path / "run", parts=["activations"])
    ingest([tmp_path / "run"], tmp_path / "s.zarr")
    address = uploaded(tmp_path / "s.zarr", f"{bucket}/s.zarr")
    export("quant-config", open_store(tmp_path / "s.zarr"), tmp_path / "local.json")
    with s3.counted() as count:
        export("quant-config", open_store(address), tmp_path / "far.json")
    assert count.total <= 60, count
    assert (tmp_path / "far.json").read_bytes() == (tmp_path / "local.json").read_bytes()


def fresh_store(bucket: str, count: int) -> str:
    """Items that were committed, and not closed by a writer that finished."""
    address = f"{bucket}/fresh.zarr"
    ids = list(range(count))
    writer = create_store(address)
    group = writer.group(latents_template(ids))
    for number in ids[:-1]:
        values = np.full((1, *group.template.shape(group.template.arrays[0])[1:]), number, "<f4")
        group.put("x", (number, 0, 0, 0, 0), values)
        group.commit([(number,)])
    return address


def test_flags_are_listed_and_records_read_when_asked(bucket: str, s3: S3Server) -> None:
    address = fresh_store(bucket, 12)
    with s3.counted() as count:
        group = open_store(address, chunks=None)["latents"]
    few = count.total
    assert count["LIST"] == 1, count
    assert not any("/commit/c." in key for key in count.keys("GET")), count
    assert group.sizes["image"] == 11
    with s3.counted() as count:
        assert group["x"].isel(image=[2, 9]).max(("step", "height", "width")).values.tolist() == [
            [2, 2], [9, 9],
        ]  # fmt: skip
    assert count.total == 4, count
    more = fresh_store(f"{bucket}/more", 24)
    with s3.counted() as count:
        assert open_store(more)["latents"].sizes["image"] == 23
    assert count.total == few, count


def test_a_writer_closes_records_while_they_are_read(bucket: str) -> None:
    address = fresh_store(bucket, 7)
    group = open_store(address)["latents"]
    with create_store(address) as writer:  # finishing closes what it finds
        writer.group(latents_template(list(range(7))))
    assert group["x"].max(("step", "height", "width", "latent_channel")).values.tolist() == [
        0, 1, 2, 3, 4, 5,
    ]  # fmt: skip


def test_a_claim_is_no_flag(bucket: str) -> None:
    address = fresh_store(bucket, 4)
    writer = create_store(address)
    group = writer.group(latents_template(list(range(4))))
    with group.claim((3,)) as held:
        assert held
        assert open_store(address)["latents"]["image"].values.tolist() == [0, 1, 2]


def test_a_damaged_flag_is_named(bucket: str) -> None:
    address = fresh_store(bucket, 3)
    backend = open_store(address).backend
    key = "latents/items/commit/c.1.0"
    raw = backend.read(key)
    assert raw is not None
    backend.put_flag(key, raw[:-5] + b"12345")
    group = open_store(address, chunks=None)["latents"]
    assert group["x"].isel(image=0).values.max() == 0
    with pytest.raises(StoreError, match="damaged completion flag"):
        group["x"].isel(image=1).load()
    backend.put_flag(key, raw[:-1])
    store = open_store(address)
    with pytest.raises(StoreError, match="damaged completion flag"):
        store.node("latents")


def test_damaged_copies_are_passed_over(tmp_path: Path, bucket: str) -> None:
    write_latents(tmp_path / "s.zarr", [3, 1])
    expected = open_store(tmp_path / "s.zarr")["latents"].load()
    for place in ("items/coordinates/c/0", "items/record/c/0/0"):
        address = uploaded(tmp_path / "s.zarr", f"{bucket}/{place.split('/')[1]}.zarr")
        backend = open_store(address).backend
        backend.put_flag(f"latents/{place}", b"nonsense")
        group = open_store(address)["latents"]
        xr.testing.assert_identical(group.drop_vars("x").load(), expected.drop_vars("x"))


MOST = {
    "report": 100,
    "plot range": 40,
    "plot heatmap": 70,
    "plot sqnr": 70,
    "analyze bits": 50,
    "analyze policy": 60,
}


@pytest.mark.parametrize("line", MOST)
def test_commands_that_read_statistics(
    made: Callable[[int], Path], tmp_path: Path, bucket: str, s3: S3Server, line: str
) -> None:
    address = uploaded(made(2), f"{bucket}/s.zarr")
    out = [] if "analyze" in line else ["-o", str(tmp_path / "out.html")]
    with s3.counted() as count:
        result = CliRunner().invoke(cli, [*line.split(), address, *(out or ["--limit", "1"])])
    assert result.exit_code == 0, result.output
    assert count.total <= MOST[line], count.total
