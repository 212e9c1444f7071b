"""How much a command says: --quiet, --verbose and --wide, in every command and before it."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest
from taqstore.pipelines.ingest import ingest

from support.cli_runner import Runner
from support.docs_tables import command_of, every_command
from taqstore.testing import RunShape, make_run_folder

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talk")
    ingest([make_run_folder(folder / "run", shape=SHAPE)], folder / "run.zarr")
    return folder / "run.zarr"


@pytest.mark.parametrize("words", every_command(), ids=" ".join)
def test_every_command_has_them(words: tuple[str, ...]) -> None:
    spelled = {spelling for option in command_of(*words).params for spelling in option.opts}
    assert {"-q", "--quiet", "-v", "--verbose"} <= spelled


@pytest.mark.parametrize(
    "words", [("-q", "analyze", "scales"), ("analyze", "scales", "-q"), ("analyze", "-q", "scales")]
)
def test_quiet_silences_notes_and_not_the_answer(
    taq: Runner, store: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    loud = taq("analyze", "scales", store, "-o", tmp_path / "a.csv", "--site", "mlp.fc1")
    assert loud.err == f"wrote {tmp_path / 'a.csv'}\n"
    hushed = taq(*words, store, "-o", tmp_path / "b.csv", "--site", "mlp.fc1")
    assert (hushed.code, hushed.err) == (0, "")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    table = taq(*words, store, "--site", "mlp.fc1")
    assert (table.err, table.out) == ("", taq("analyze", "scales", store, "--site", "mlp.fc1").out)
    assert table.out


def test_quiet_still_says_why_it_failed(taq: Runner, store: Path, tmp_path: Path) -> None:
    refused = taq("-q", "info", tmp_path / "no.zarr")
    assert (refused.code, "no store here" in refused.err) == (1, True)
    (tmp_path / "run").mkdir()
    damaged = tmp_path / "activation_stats_postgelu.npz"
    damaged.write_bytes(b"PK")
    assert taq("-q", "ingest", damaged, tmp_path / "new.zarr").err


def test_both_are_misuse(taq: Runner, store: Path) -> None:
    for words in (("-q", "info", store, "-v"), ("info", store, "-qv"), ("-v", "info", "-q", store)):
        refused = taq(*words)
        assert (refused.code, "exclude each other" in refused.err) == (2, True), words


def test_one_command_does_not_hush_the_next(taq: Runner, store: Path, tmp_path: Path) -> None:
    assert not taq("-q", "query", store, "latents", "-o", tmp_path / "a.nc").err
    assert taq("query", store, "latents", "-o", tmp_path / "b.nc").err.startswith("wrote")
    assert "[" in taq("-v", "info", store).err
    assert not taq("info", store).err


@pytest.mark.parametrize("words", [("-v", "query"), ("query", "--verbose")])
def test_verbose_says_what_is_opened_read_and_written(
    taq: Runner, store: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    out = tmp_path / "x.csv"
    shown = taq(*words, store, "latents", "x", "--image", "0", "-o", out)
    assert shown.code == 0
    told = "taqstore", "python", "zarr", f"opened {store}", "group latents", f"wrote {out}", "ended"
    for part in (*told, "files of stores"):
        assert part in shown.err, part
    plain = taq("query", store, "latents", "x", "--image", "0")
    assert taq("-v", "query", store, "latents", "x", "--image", "0").out == plain.out


def test_verbose_shows_where_an_error_of_ours_came_from(taq: Runner, tmp_path: Path) -> None:
    plain = taq("info", tmp_path / "no.zarr")
    told = taq("-v", "info", tmp_path / "no.zarr")
    assert "Traceback" not in plain.err
    assert "Traceback" in told.err
    assert "read_root" in told.err
    assert plain.err.strip() in told.err


def test_a_terminal_is_asked_for_its_width(
    taq: Runner, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: a table is narrower there than on a pipe, and whole with --wide."""
    import fcntl
    import struct
    import sys
    import termios

    piped = taq("info", store).out
    shown = []
    for extra in ([], ["--wide"]):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            taq("info", store, *extra)
            terminal.flush()
            shown.append(os.read(ours, 1 << 16).decode().replace("\r\n", "\n"))
        os.close(ours)
    assert max(map(len, piped.splitlines())) > 60
    assert max(map(len, shown[0].splitlines())) <= 60
    assert shown[1] == piped
