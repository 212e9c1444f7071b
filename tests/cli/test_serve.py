"""`taqstore serve`: what is refused before it listens, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.hostile import POOLED, make_hostile
from taqstore.serve.served.service import Service
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_store(tmp_path_factory.mktemp("serve") / "run.zarr", shape=SHAPE))


@contextmanager
def process(*words: str | Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the line that it prints once it answers."""
    run = subprocess.Popen(
        [sys.executable, "-m", "taqstore", "serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert run.stdout
    try:
        yield run, run.stdout.readline()
    finally:
        if run.poll() is None:
            run.kill()
        run.communicate()


def ended(run: subprocess.Popen[str]) -> tuple[int, str, str]:
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    return run.returncode, out, err


def test_the_address_is_all_of_stdout_and_ctrl_c_ends_it_well(store: Path) -> None:
    with process(store, "--port", "0") as (run, line):
        assert line.startswith("http://127.0.0.1:")
        assert int(line.rstrip("/\n").rpartition(":")[2]) > 0
        with urllib.request.urlopen(f"{line.strip()}zarr/run.zarr/zarr.json") as answer:
            assert answer.read() == (store / "zarr.json").read_bytes()
        code, out, err = ended(run)
    assert (code, out) == (0, "")
    assert err == "serving run.zarr; Ctrl-C ends it\n"


def test_quiet_leaves_the_address(store: Path) -> None:
    with process(store, "--port", "0", "-q") as (run, line):
        assert line.startswith("http://")
        assert ended(run) == (0, "", "")


def test_a_client_that_reads_nothing_does_not_keep_it(store: Path) -> None:
    with process(store, "--port", "0") as (run, line):
        port = int(line.rstrip("/\n").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
            code, _, err = ended(run)
    assert (code, "Traceback" in err) == (0, False)


def test_a_token_is_made_printed_once_and_in_no_line_of_talk(store: Path) -> None:
    words = (store, "--port", "0", "--token", "auto", "--host", "0.0.0.0", "-v")
    with process(*words) as (run, line):
        address, _, token = line.strip().partition("?token=")
        assert len(token) >= 32
        assert address.startswith(f"http://{socket.gethostname()}:")
        own = f"http://127.0.0.1:{address.rstrip('/').rpartition(':')[2]}/zarr/run.zarr/zarr.json"
        with urllib.request.urlopen(f"{own}?token={token}") as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(own)
        code, out, err = ended(run)
    assert (code, out) == (0, "")
    assert "GET /zarr/run.zarr/zarr.json: 200" in err
    assert token not in err


def test_a_token_of_the_environment_is_not_printed(store: Path) -> None:
    with process(store, "--port", "0", TAQSTORE_TOKEN="only friends") as (run, line):
        assert "token" not in line
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(line.strip())
        assert "only" not in "".join(map(str, ended(run)))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "who reaches this machine could read the stores"),
        (["--token", "short"], 2, "is guessed"),
        (["--allow-origin", "friend.example"], 2, "no origin: 'friend.example'"),
        (["--allow-origin", "https://friend.example/page"], 2, "no origin"),
        (["--allow-origin", "null"], 2, "no origin"),
        (["--port", "70000"], 2, "70000"),
        (["--host", "192.0.2.1", "--token", "auto"], 1, "192.0.2.1:0: "),
        (["--host", "nobody.invalid"], 1, "no address of this machine"),
    ],
)
def test_what_cannot_be_is_refused_before_it_listens(
    taq: Runner, store: Path, words: list[str], code: int, said: str
) -> None:
    port = () if "--port" in words else ("--port", 0)
    shown = taq("serve", store, *words, *port)
    assert (shown.code, shown.out) == (code, "")
    assert said in shown.err


def test_a_port_that_is_taken_is_one_line(taq: Runner, store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        shown = taq("serve", store, "--port", port)
    assert (shown.code, shown.out, shown.err.count("\n")) == (1, "", 1)
    assert f"127.0.0.1:{port}: the port is taken" in shown.err
    assert "--port 0" in shown.err


def test_a_store_that_is_none_is_one_line(taq: Runner, store: Path, tmp_path: Path) -> None:
    shown = taq("serve", store, tmp_path / "none.zarr")
    assert (shown.code, shown.out, shown.err.count("\n")) == (1, "", 1)
    assert "none.zarr: no store here" in shown.err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_what_is_not_installed_is_named(
    taq: Runner, store: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("taqstore.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    shown = taq("serve", store)
    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert package in shown.err
    assert "pip install 'taqstore[serve]'" in shown.err


def test_a_browser_is_opened_where_that_is_asked_for(store: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho \"$1\" > '{tmp_path}/opened'\n")
    browser.chmod(0o755)
    with process(store, "--port", "0", "--open", BROWSER=f"{browser} %s") as (run, line):
        urllib.request.urlopen(line.strip()).close()
        for _ in range(200):
            if (tmp_path / "opened").exists() and (tmp_path / "opened").read_text():
                break
            time.sleep(0.05)
        assert ended(run)[0] == 0
    assert (tmp_path / "opened").read_text() == line


def test_a_store_that_is_damaged_inside_is_served_and_said(tmp_path: Path) -> None:
    damaged = Path(make_store(tmp_path / "run.zarr", shape=SHAPE))
    record = next((damaged / "activations/mlp.fc2/items/record/c").rglob("0"))
    while record.is_dir():
        record /= "0"
    record.write_bytes(bytes(reversed(record.read_bytes())))
    assert Service([str(damaged)]).names == ("run.zarr",)
    with process(damaged, "--port", "0") as (run, line):
        chunk = f"{line.strip()}zarr/run.zarr/activations/mlp.fc2/min/c/0/0/0/0"
        with pytest.raises(urllib.error.HTTPError, match="500") as refused:
            urllib.request.urlopen(chunk)
        told = refused.value.read()
        code, _, err = ended(run)
    assert "Traceback" not in err, err
    assert code == 0
    assert b"damaged records of items" in told


def test_a_store_that_claims_too_much_is_refused_question_by_question(tmp_path: Path) -> None:
    hostile = make_hostile(tmp_path / "run.zarr", "a shape of 10^10")
    with process(hostile, "--port", "0") as (run, line):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{line.strip()}api/stores/run.zarr/query/{POOLED}")
        told = json.loads(refused.value.read())["error"]
        code, _, err = ended(run)
    assert refused.value.code == 503  # as of any store that cannot be read
    assert told.isprintable()
    assert (code, "Traceback" in err) == (0, False)


def test_without_asserts_nothing_is_served(store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-O", "-m", "taqstore", "serve", str(store), "--port", "0"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "PYTHONOPTIMIZE" in done.stderr
    assert len(done.stderr.splitlines()) == 1
