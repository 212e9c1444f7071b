"""Progress says what, how much of it, at what rate and how long yet; or nothing."""

from __future__ import annotations

import doctest
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from support.cli_runner import Runner
from taqstore.cli import progress
from taqstore.cli.progress import FIRST, LONGEST, Lines, duration, progress_bar
from taqstore.testing import RunShape, make_run_folder, make_store

SHAPE = RunShape(images=2, steps=6, blocks=1, hidden=4, image_tokens=5, text_tokens=3)


class Clock:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_seldom_and_say_everything(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines("forwards", clock=clock)
    clock.now += 10  # a model was loaded
    lines.start(200)
    for step in range(100):
        clock.now += 1.0
        lines.advance(f"image 0, step {step}")
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "image 0, step 19: 20 of 200 forwards, 1.0/s, 3:00 min left"
    assert told[1] == "image 0, step 79: 80 of 200 forwards, 1.0/s, 2:00 min left"
    assert len(told) == 2


def test_lines_never_come_more_often_than_they_did(capsys: pytest.CaptureFixture[str]) -> None:
    clock, times = Clock(), []
    lines = Lines("bytes", clock=clock)
    lines.start(10**9)
    for _ in range(5000):
        clock.now += 1
        lines.advance("a.npz", 1000)
        if capsys.readouterr().err:
            times.append(clock.now)
    gaps = [b - a for a, b in zip([100.0, *times], times, strict=False)]
    assert gaps[0] == FIRST
    assert gaps == sorted(gaps)
    assert gaps[-1] == LONGEST


def test_a_run_that_has_all_says_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = Lines("linears", clock=clock)
    lines.start(0)
    clock.now += 100
    lines.advance("mm0", 0)
    assert capsys.readouterr().err == "mm0: 0 of 0 linears, -/s\n"


def test_examples() -> None:
    assert doctest.testmod(progress).failed == 0
    assert duration(59.6) == "1:00 min"


def until_end(terminal: int) -> str:
    """All that was written to a terminal, up to its last word."""
    shown = b""
    while not shown.endswith(b"end"):
        shown += os.read(terminal, 1 << 12)
    os.close(terminal)
    return shown.decode().removesuffix("end")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_terminal_shows_all_of_it(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Words that count are whole at any width, and the line is no wider than the terminal."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        with progress_bar("loading the model", unit="forwards") as told:
            told.start(128)
            for step in range(12):
                told.advance(f"gptq/a8-static, image 1003, step {step}")
        terminal.write("end")
        terminal.flush()
        shown = until_end(ours)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").splitlines()
    words = "12/128" if width < 70 else "12 of 128 forwards"
    last = next(line for line in reversed(lines) if words in line)
    assert re.search(rf"{words}  (-/s|\d+\.\d(/s| s each)  \d+ s left)", last)
    assert last.startswith("gptq/a8")
    assert max(map(len, lines)) <= width


def test_quiet_shows_none_at_a_terminal(
    taq: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_run_folder(tmp_path / "run", shape=SHAPE)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        assert taq("-q", "ingest", source, tmp_path / "s.zarr").code == 0
        terminal.write("end")
        terminal.flush()
        assert until_end(ours) == ""


def test_a_pipe_gets_no_bar(taq: Runner, tmp_path: Path) -> None:
    one, two = (make_store(tmp_path / f"{n}.zarr", shape=SHAPE) for n in (1, 2))
    assert "\x1b" not in taq("merge", one, two, tmp_path / "both.zarr", "--renumber").err
