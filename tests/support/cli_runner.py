"""Run the command line in this process, as `main` does for a user."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest

from taqstore.cli import main


@dataclass(frozen=True)
class Result:
    """Exit code and what went to stdout and stderr."""

    code: int
    out: str
    err: str


class Runner:
    """Calls `taqstore ARGUMENTS` with a patched `sys.argv`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: Any) -> Result:
        self._patch.setattr(sys, "argv", ["taqstore", *map(str, arguments)])
        # As the console script has it: click names the program after the package that is run.
        self._patch.setattr(sys.modules["__main__"], "__package__", None, raising=False)
        self._capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = self._capsys.readouterr()
        return Result(code, out, err)


@pytest.fixture
def taq(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(monkeypatch, capsys)
