"""`taqstore report`: wiring with the library call patched, and end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import taqstore.report
from support.builders import write_latents
from support.cli_runner import Runner
from taqstore.cli import report as cli
from taqstore.errors import MissingError
from taqstore.query import sites


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_latents(tmp_path / "l.zarr", [0])
    return tmp_path / "l.zarr"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Options that `build` was called with; it gives a page of one character beyond ASCII.

    What is said of the store afterwards is tried where there is something to say.
    """
    monkeypatch.setattr(cli, "say_nonfinite", lambda *groups: None)
    monkeypatch.setattr(sites, "choose_source", lambda store, source: source)
    monkeypatch.setattr(sites, "paths_of", lambda store, source: ())
    calls: list[dict[str, Any]] = []

    def build(store: object, **options: Any) -> str:
        assert options.pop("notes") == []  # for what could not be drawn
        calls.append(options)
        return "σ\n"

    monkeypatch.setattr(taqstore.report, "build", build)
    return calls


def test_defaults_are_those_of_the_library(
    taq: Runner, store: Path, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    done = taq("report", store, "-o", tmp_path / "r.html")
    assert (done.code, done.out) == (0, f"{tmp_path / 'r.html'}\n")
    assert (tmp_path / "r.html").read_bytes() == "σ\n".encode()
    expected = {"bits": taqstore.report.BITS, "budget": None, "explorer": None}
    # But for a second process, which the library starts when it is asked to.
    assert asked == [{"source": None, "groups": None, "processes": True, **expected}]


def test_options_reach_the_library(
    taq: Runner, store: Path, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    url = "http://127.0.0.1:8765/"
    options = ("--bits", 8, "--bits", 5, "--budget", 5.5, "--groups", 3, "--source", "activations")
    done = taq("report", store, "-o", tmp_path / "r.html", *options, "--explorer", url)
    assert done.code == 0
    told = {"source": "activations", "bits": (8, 5), "budget": 5.5, "groups": 3, "explorer": url}
    assert asked == [{"processes": True, **told}]


def test_a_standing_file_is_replaced_only_when_forced(
    taq: Runner, store: Path, tmp_path: Path, asked: list[dict[str, Any]]
) -> None:
    target = tmp_path / "r.html"
    target.write_text("mine")
    done = taq("report", store, "-o", target)
    assert done.code == 1
    assert "the target exists" in done.err
    assert target.read_text() == "mine"
    assert asked == []
    assert taq("report", store, "-o", target, "--force").code == 0
    assert target.read_text(encoding="utf-8") == "σ\n"


def test_errors_leave_one_line_and_no_file(taq: Runner, store: Path, tmp_path: Path) -> None:
    done = taq("report", store, "-o", tmp_path / "r.html")
    assert done.code == 1
    assert done.err.startswith("taqstore: no statistics")
    assert done.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["l.zarr"]


def test_a_failing_build_leaves_what_was_there(
    taq: Runner, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(store: object, **options: Any) -> str:
        raise MissingError("nothing there")

    monkeypatch.setattr(taqstore.report, "build", build)
    (tmp_path / "r.html").write_text("old")
    assert taq("report", store, "-o", tmp_path / "r.html", "--force").code == 1
    assert (tmp_path / "r.html").read_text() == "old"


@pytest.mark.parametrize(
    "options", [(), ("-o", "r.html", "--bits", 17), ("-o", "r.html", "--groups", 0)]
)
def test_misuse_is_exit_2(
    taq: Runner, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert taq("report", store, *options).code == 2
    assert not (tmp_path / "r.html").exists()
