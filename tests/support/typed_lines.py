"""A bash at a terminal, into which lines are typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tty
from pathlib import Path
from types import TracebackType

TAB = "\t"
_ROOT = Path(__file__).resolve().parents[2]


def with_command(folder: Path) -> dict[str, str]:
    """An environment that has `taqstore` of this checkout on its path, in `bin` of a folder."""
    program = folder / "bin" / "taqstore"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(_ROOT)!r})\n"
        "from taqstore.cli import main\nmain()\n"
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}


class Bash:
    """bash, interactive, with `taqstore` of this checkout on its path.

    Parameters
    ----------
    folder
        Where it works; `bin` in it gets the command.
    """

    def __init__(self, folder: Path) -> None:
        self._screen, terminal = os.openpty()
        tty.setraw(self._screen)
        self._bash = subprocess.Popen(
            [str(shutil.which("bash")), "--norc", "--noprofile", "-i"],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=folder,
            env={**with_command(folder), "TERM": "dumb", "PS1": "", "HISTFILE": "",
                 "INPUTRC": os.devnull},
            start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        self._number = 0

    def __enter__(self) -> Bash:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bash.kill()
        self._bash.wait()
        os.close(self._screen)

    def words(self, line: str) -> list[str]:
        """Words that a line has after it was typed, TABs and all."""
        self._number += 1
        end = f"end{self._number}"
        # From the start of the line: print its words; from its end: a mark, which is not typed so.
        self._type(f"{line}\x01printf '<%s>' \x05; echo '<''{end}>'\r")
        shown = self._until(f"<{end}>")
        return shown.rpartition("\n")[2].removesuffix(f"<{end}>").strip("<>").split("><")

    def enter(self, line: str) -> None:
        """Run a command that prints nothing."""
        self._type(f"{line}\r")

    def _type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def _until(self, mark: str) -> str:
        shown = ""
        while mark not in shown:
            shown += os.read(self._screen, 1 << 16).decode(errors="replace").replace("\r", "\n")
        return shown[: shown.index(mark) + len(mark)]
