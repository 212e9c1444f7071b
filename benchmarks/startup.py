"""How long until something can be asked: opening a store, and the command line's help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .inputs import Inputs
from .measure import Contender, Run
from .question import Question
from .rows import Target

SMALL, CLICK = "3 layers x 4 steps", 'python -c "import click"'


def opening_contenders(inputs: Inputs) -> list[Contender]:
    """A store opened with every group as a Dataset; both stores have the same groups."""

    def opening(kind: str, *, mapped: bool) -> Run:
        from taqstore import open_store

        path = inputs.store(kind)

        def run(call: int) -> list[str]:
            store = open_store(path, chunks=None) if mapped else open_store(path)
            return [group for group in store if store[group].sizes]

        return run

    return [
        Contender("chunks=None", lambda: opening("statistics", mapped=True), ours=True),
        Contender("default", lambda: opening("statistics", mapped=False), ours=True),
        Contender(SMALL, lambda: opening("small", mapped=True)),
        Contender(f"{SMALL}, default", lambda: opening("small", mapped=False)),
    ]


def help_contenders(inputs: Inputs) -> list[Contender]:
    """A new interpreter each time."""
    return [
        Contender("taqstore --help", lambda: _process("-m", "taqstore", "--help"), ours=True),
        Contender(CLICK, lambda: _process("-c", "import click")),
    ]


def _process(*arguments: str) -> Run:
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, *arguments]

    def run(call: int) -> int:
        return subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=True).returncode

    return run


def _stores(inputs: Inputs) -> list[Path]:
    return [inputs.store("statistics"), inputs.store("small")]


_TWICE = Target(2, at_least=False)
STARTUP = {
    "open": Question(
        "open 285 linears x 50 steps",
        opening_contenders,
        _stores,
        {
            ("chunks=None", SMALL): _TWICE,
            ("default", f"{SMALL}, default"): _TWICE,
        },
        rounds=15,
        inverse=True,
    ),
    "help": Question(
        "taqstore --help",
        help_contenders,
        lambda inputs: [],
        {CLICK: _TWICE},
        rounds=15,
        measures_peak=False,
    ),
}
