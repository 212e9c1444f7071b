"""`--scheduler` on every command that reads a whole store: byte-equal answers, whoever computes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from support.cli_runner import Runner
from support.s3_server import S3Server
from support.uploaded import in_a_bucket
from taqstore.cli import COMMANDS, cli
from taqstore.place.location import Location
from taqstore.run.dealing import NO_DASHBOARD
from taqstore.testing import RunShape, make_store
from taqstore.upkeep import shard_check

distributed = pytest.importorskip("distributed", reason="extra `distributed` not installed")
# Its servers close sockets and threads in their own time.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("error:Port .* is already in use"),
]

SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)
QUESTIONS = {
    "info": "info {s} --json",
    "verify": "verify {s} --json",
    "query": "query {s} activations/mlp.fc1 max --reduce channel=max --csv",
    "analyze": "analyze scales {s} --site mlp.fc2 --clip mse --bits 5 --csv",
    "analyze of a whole store": "analyze tiers {s} --csv",
    "diff": "diff {s} {s} --csv",
    "export": "export quant-config {s} -o out.json",
    "export of a folder": "export comfy-stats {s} -o out.npz",
    "plot": "plot trajectories {s} -o out --group activations/mlp.fc2 --layer mm0.img",
    "report": "report {s} -o out.html --bits 8 --average 8 --time-groups 1",
}
"""A question for each command, and where they are written in several ways, one for each."""
REMOTE = ("info", "verify", "analyze", "diff", "export")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("schedulers") / "s.zarr", shape=SHAPE)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **NO_DASHBOARD) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def remote(s3: S3Server, store: Path) -> Iterator[str]:
    with in_a_bucket(s3, store) as address:
        yield address


@pytest.fixture
def answer(taq: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What a command printed and wrote, in an empty folder each time."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")  # figures of matplotlib name the time otherwise

    def run(question: str, store: Any, *options: str) -> tuple[str, str, dict[str, bytes]]:
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        monkeypatch.chdir(folder)
        done = taq(*question.format(s=store).split(), *options)
        assert done.code == 0, done.err
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        written = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        assert done.out or written
        return done.out, done.err, written

    return run


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    """What commands answered where no scheduler is named, by their names; once each."""
    return {}


def test_every_command_that_reduces_has_a_question() -> None:
    """`merge` has tests of its own."""
    having = set()
    for name in COMMANDS:
        context = click.Context(cli)
        command: Any = cli.get_command(context, name)
        words = command.list_commands(context)[:1] if hasattr(command, "list_commands") else []
        command = command.get_command(context, words[0]) if words else command
        if command.params and any(option.name == "scheduler" for option in command.params):
            having.add(name)
    wanted = {"analyze", "diff", "export", "plot", "report", "verify", "info", "query"}
    assert wanted <= having
    assert wanted == {question.partition(" ")[0] for question in QUESTIONS}


# A report asks hundreds of small questions: on this cluster it takes minutes.
@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "report"])
def test_workers_of_a_cluster_answer_alike(
    answer: Callable[..., Any], store: Path, cluster: Any, here: dict[str, Any], name: str
) -> None:
    if name not in here:
        here[name] = answer(QUESTIONS[name], store)
    there = answer(QUESTIONS[name], store, "--scheduler", cluster.scheduler_address)
    assert there == here[name]


@pytest.mark.parametrize("name", REMOTE)
def test_workers_open_stores_in_buckets_with_the_options_that_were_told(
    answer: Callable[..., Any], remote: str, s3: S3Server, cluster: Any, name: str
) -> None:
    """Their own environment knows no server."""
    assert "AWS_ENDPOINT_URL" not in os.environ
    words = s3.words()
    here = answer(QUESTIONS[name], remote, *words)
    there = answer(QUESTIONS[name], remote, *words, "--scheduler", cluster.scheduler_address)
    assert there == here


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("verify", "synchronous"),
        ("verify", "processes:2"),
        ("verify", "threads:3"),
        ("query", "threads:1"),
        ("query", "processes:1"),
        ("info", "synchronous"),
        ("report", "synchronous"),
    ],
)
def test_schedulers_of_this_machine(
    answer: Callable[..., Any], store: Path, here: dict[str, Any], name: str, scheduler: str
) -> None:
    if name not in here:
        here[name] = answer(QUESTIONS[name], store)
    assert answer(QUESTIONS[name], store, "--scheduler", scheduler) == here[name]


def test_damage_is_told_in_one_order(
    taq: Runner, store: Path, tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.zarr"
    shutil.copytree(store, damaged)
    backend = Location.parse(damaged).backend(read_only=False)
    files = [path for path in damaged.rglob("*") if path.is_file() and "/c/" in str(path)]
    data = [path for path in sorted(files) if "/items/" not in str(path)][:-3:4]
    assert len(data) > 5
    for path in data:
        backend.write(path.relative_to(damaged).as_posix(), [path.read_bytes()[:-1] + b"?"])
    monkeypatch.setattr(shard_check, "PART_FILES", 3)
    answers = [
        taq("verify", damaged, "--scheduler", scheduler)
        for scheduler in ("synchronous", "threads", cluster.scheduler_address)
    ]
    assert [done.code for done in answers] == [1, 1, 1]
    assert answers[0].out.count("\n") > 5
    assert len({done.out for done in answers}) == 1


def test_a_lost_worker_costs_its_part_only(
    taq: Runner, remote: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_check, "PART_FILES", 2)
    words = s3.words()
    whole = taq("verify", remote, "--json", *words)
    assert whole.code == 0
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, **NO_DASHBOARD) as cluster,
        s3.fault("slow", seconds=0.05, what="GET", key="/c/"),
        s3.counted() as count,
    ):
        victim = next(iter(cluster.workers.values())).process.pid

        def kill() -> None:
            while s3.asked_since(count) < 40:
                time.sleep(0.02)
            os.kill(victim, signal.SIGKILL)

        killing = threading.Thread(target=kill)
        killing.start()
        done = taq("verify", remote, "--json", *words, "--scheduler", cluster.scheduler_address)
        killing.join()
    assert (done.code, done.out) == (0, whole.out)
    assert count.total > 40


def test_ctrl_c_leaves_nothing_running(remote: str, s3: S3Server, cluster: Any) -> None:
    command = [sys.executable, "-m", "taqstore", "verify", remote, *s3.words()]
    with s3.fault("slow", seconds=0.2, what="GET", key="/c/"):
        with s3.counted() as count:
            asked = subprocess.Popen(
                [*command, "--scheduler", cluster.scheduler_address],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            while s3.asked_since(count) < 20:
                time.sleep(0.02)
                assert asked.poll() is None
            asked.send_signal(signal.SIGINT)
            out, err = asked.communicate(timeout=60)
        assert (asked.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "taqstore: stopped"
        time.sleep(0.5)
        with s3.counted() as after:
            time.sleep(0.5)
    assert not after.total, after
