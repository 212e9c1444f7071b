"""Run the blocks of a page, in order, in the folders that it names."""

from __future__ import annotations

import json
import linecache
import os
import subprocess
import sys
from contextlib import ExitStack
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from support.cli_runner import Result, Runner
from support.executed import Block, Command, PageError, missing_words
from support.executed_folders import Folders
from support.served import serving

SECONDS = 300
# Where a server is that a page begins, unless it says otherwise.
SERVER = "127.0.0.1:8765"


def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of figures are laid out and their numbers written, but no pixels, which nobody sees.

    How pictures are written is for `tests/plot`, and how a report has them for `tests/report`.
    """

    def save(figure: Any, target: Any, **how: Any) -> None:
        Path(target).write_bytes(b"")

    # By its name: the function is called like its file.
    monkeypatch.setattr(import_module("taqstore.plot.render"), "save", save)
    monkeypatch.setattr(import_module("taqstore.report.pictures"), "inline_svg", _no_svg)


def _no_svg(figure: Any, prefix: str) -> str:
    return '<svg viewBox="0 0 1 1" role="img"></svg>'


class PageRunner:
    """Runs blocks; folders and Python names of a page last as long as it does.

    Parameters
    ----------
    taq
        Runs commands in this process.
    folders
        Where copies of folders come from.
    place
        An empty folder for the copies.
    """

    def __init__(
        self, taq: Runner, folders: Folders, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self._taq, self._folders, self._place, self._patch = taq, folders, place, monkeypatch
        self._names: dict[str, Any] = {"__name__": "__page__"}
        self._servers = ExitStack()
        self._server = SERVER

    def close(self) -> None:
        """End what the page began; whatever a server said of a fault is an error."""
        self._servers.close()

    def enter(self, folder: str) -> Path:
        """Go to the page's copy of a folder."""
        own = self._place / folder
        if not own.exists():
            own.parent.mkdir(exist_ok=True)
            self._folders.copy(folder, own)
        self._patch.chdir(own)
        return own

    def run(self, block: Block) -> None:
        """Run a block.

        Raises
        ------
        PageError
            A command had another exit code or did not print what is shown.
        """
        if block.skipped or block.language == "text":
            return
        if block.language == "json":
            json.loads(block.text)
            return
        self.enter(block.folder)
        if block.language == "python":
            self._python(block)
            return
        for command in block.commands():
            self.command(command, where=str(block))

    def command(self, command: Command, *, where: str) -> Result:
        """Run one line of a session."""
        if command.serves:
            return self._serve(command)
        if command.of_shell:
            done = _in_shell(self._reached(command.for_shell))
        else:
            done = self._taq(*map(self._reached, command.words))
        if done.code != command.code:
            raise PageError(
                f"{where}: exit code {done.code}, not {command.code}: $ {command.text}\n"
                f"{done.out[-2000:]}{done.err[-2000:]}"
            )
        self._check_written(command, where)
        absent = missing_words(command.shown, f"{done.out}\n{done.err}")
        if absent:
            raise PageError(
                f"{where}: $ {command.text}\nis shown to print {absent}, printed:\n"
                f"{done.out}{done.err}"
            )
        return done

    def _serve(self, command: Command) -> Result:
        """Begin a server in place of the last one; it has a port that is free."""
        self._servers.close()
        addresses, options = command.served
        served = self._servers.enter_context(serving(*addresses, options=options))
        self._server = f"127.0.0.1:{served.port}"
        return Result(0, "\n".join(served.said), "")

    def _reached(self, text: str) -> str:
        """A text with the server's own address."""
        return text.replace(SERVER, self._server)

    def _check_written(self, command: Command, where: str) -> None:
        """What `-o` names is there."""
        words = [] if command.of_shell or command.code else command.words
        named = [word for before, word in pairwise(words) if before in ("-o", "--save-images")]
        here = [name for name in named if "://" not in name]
        gone = [name for name in here if not Path(name).exists()]
        if gone:
            raise PageError(f"{where}: $ {command.text}\ndid not write {gone}")

    def _python(self, block: Block) -> None:
        name = f"<{block}>"
        text = self._reached(block.text)
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        exec(compile(text, name, "exec"), self._names)


def _in_shell(text: str) -> Result:
    paths = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-c", text],
        env={**os.environ, "PATH": paths},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return Result(done.returncode, done.stdout, done.stderr)
