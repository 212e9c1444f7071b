"""`analyze --scheduler`: the same numbers wherever they are computed."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from support.cli_runner import Runner
from taqstore.arrays.dask_blocks import behind_dask
from taqstore.cli.scheduler import computing
from taqstore.errors import TaqError
from taqstore.run.dealing import NO_DASHBOARD
from taqstore.store.reader import open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
QUESTION = (
    "analyze",
    "scales",
    "--site",
    "mlp.fc2",
    "--clip",
    "mse",
    "--affine",
    "--bits",
    5,
    "--csv",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("scheduler") / "s.zarr", shape=SHAPE)


def answer(taq: Runner, store: Path, *options: str) -> str:
    *command, as_csv = QUESTION
    done = taq(*command, store, as_csv, *options)
    assert done.code == 0, done.err
    assert done.out.count("\n") > 5
    return done.out


@pytest.mark.parametrize("scheduler", ["synchronous", "processes"])
def test_other_local_schedulers(taq: Runner, store: Path, scheduler: str) -> None:
    assert answer(taq, store, "--scheduler", scheduler) == answer(taq, store)


# Its servers close sockets and threads in their own time.
@pytest.mark.filterwarnings("default")
def test_workers_of_a_cluster(taq: Runner, store: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="extra `distributed` not installed")
    threads = answer(taq, store)
    with distributed.LocalCluster(processes=False, **NO_DASHBOARD) as cluster:
        address = cluster.scheduler_address
        assert answer(taq, store, "--scheduler", address) == threads
    before = dict(os.environ)
    assert answer(taq, store, "--scheduler", "distributed") == threads
    assert dict(os.environ) == before  # workers have one thread of BLAS each, this process has not


@pytest.mark.filterwarnings("default")
def test_nobody_at_the_address(taq: Runner, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="extra `distributed` not installed")
    monkeypatch.setattr("taqstore.cli.scheduler.CONNECT_SECONDS", 0.5)
    done = taq("analyze", "scales", store, "--scheduler", "tcp://127.0.0.1:9")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "no dask scheduler answers" in done.err


def test_without_distributed(taq: Runner, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = taq("analyze", "scales", store, "--scheduler", "distributed")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "pip install 'taqstore[distributed]'" in done.err


def test_a_name_that_is_none(taq: Runner, store: Path) -> None:
    done = taq("analyze", "scales", store, "--scheduler", "thread")
    assert done.code == 2
    assert "'thread' is not known; did you mean threads? There is threads, synchronous" in done.err


def test_memory_is_not_shared_with_workers() -> None:
    with (
        pytest.raises(TaqError, match="cannot read a store in this one's memory"),
        computing("processes", "memory://s.zarr"),
    ):
        pass


def test_what_workers_are_sent_holds_no_data(store: Path) -> None:
    """A handle: its size does not follow the array, even after its files were mapped."""
    late = open_store(store)["activations/mlp.fc2"]
    expected = late["histogram"].values
    group = behind_dask(late)
    graph = group["histogram"].data.__dask_graph__()
    sent = pickle.dumps(dict(graph))
    assert len(sent) < 20_000 < expected.nbytes
    np.testing.assert_array_equal(group["histogram"].compute(scheduler="processes"), expected)
