"""Every example of every `--help` runs as it is typed, in the folder it speaks of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.executed import Command
from support.executed_folders import Folders, folders  # noqa: F401 - a fixture
from support.help_examples import NOT_RUN, SETTINGS, Setting, examples
from support.live_capture import needs_models
from support.page_runner import PageRunner, undrawn

EXAMPLES = dict(examples())


def test_examples_are_found() -> None:
    assert sum(map(len, EXAMPLES.values())) > 30
    assert set(SETTINGS) <= {name.split()[0] for name in EXAMPLES}
    for word in NOT_RUN:
        assert any(word in line for lines in EXAMPLES.values() for line in lines), word


@needs_models
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_help_text_run(
    taq: Runner,
    folders: Folders,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    undrawn(monkeypatch)
    setting = SETTINGS.get(name.split()[0], Setting())
    lines = [line for line in EXAMPLES[name] if not any(word in line for word in NOT_RUN)]
    runs = [(line,) for line in lines] if setting.fresh else [tuple(lines)]
    for number, run in enumerate(runs):
        runner = PageRunner(taq, folders, tmp_path / str(number), monkeypatch)
        with closing(runner):
            for line in (*setting.before, *run):
                monkeypatch.chdir(runner.enter(setting.folder) / setting.within)
                runner.command(Command(line), where=f"taqstore {name} --help")
