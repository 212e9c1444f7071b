"""A file that is in the way of an answer is told before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli_runner import Runner
from taqstore.analysis.table import ANALYSES
from taqstore.export.formats import FORMATS

COMMANDS = [
    *(("analyze", name, *("s",) * (1 + row.second)) for name, row in ANALYSES.items()),
    *(("export", name, "s") for name, row in FORMATS.items() if row.schema),
    ("query", "s", "latents"),
    ("diff", "s", "t"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_stands_there_is_told_first(
    taq: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / ("a.json" if words[0] == "export" else "a.csv")
    target.write_text("mine")
    done = taq(*words, "-o", target)  # there is no such store
    assert done.code == 1, done.err
    assert f"{target}: the target exists" in done.err, done.err
    assert target.read_text() == "mine"
