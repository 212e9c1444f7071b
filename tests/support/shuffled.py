"""Commands run in one process in which folders are listed in another order, and sets too.

`python shuffled.py SEED STORE WORK OUT`: what every command that opens a store says, as JSON. Run
it under another PYTHONHASHSEED for another order of sets.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.store_commands import calls
from taqstore.cli import main

LEFT_OUT = (
    *("generate", "cache", "collect", "adaround", "gptq", "evaluate", "gate", "sensitivity"),
    *("profile", "plot", "report", "ingest"),
)
"""Commands that load a model or draw; ingest is called by itself."""


class Listed:
    """Entries of `os.scandir` in another order."""

    def __init__(self, entries: list[Any]) -> None:
        self._entries = iter(entries)

    def __enter__(self) -> Listed:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        return self._entries

    def __next__(self) -> Any:
        return next(self._entries)

    def close(self) -> None:
        """Nothing is open."""


def shuffle(seed: int) -> None:
    """List folders in an order of our own from now on."""
    order, listdir, scandir = random.Random(seed), os.listdir, os.scandir

    def mixed_names(*place: Any) -> list[Any]:
        found = listdir(*place)
        order.shuffle(found)
        return found

    def mixed_entries(*place: Any) -> Any:
        with scandir(*place) as entries:
            found = sorted(entries, key=lambda entry: str(entry.name))
        order.shuffle(found)
        return Listed(found)

    os.listdir = mixed_names  # type: ignore[assignment]
    os.scandir = mixed_entries


def said(words: list[str]) -> list[str]:
    """Exit code, stdout and stderr of a command."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv, code = ["taqstore", *words], "0"
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = str(stop.code or 0)
    return [code, out.getvalue(), err.getvalue()]


def run(seed: int, store: Path, work: Path) -> dict[str, list[str]]:
    """What every command that opens a store says, and what ingest says of the folder beside it."""
    shuffle(seed)
    work.mkdir()
    found = {}
    for path in (store / ".." / "bad", store / ".." / "run"):
        words = ["ingest", str(path), str(work / f"{path.name}.zarr")]
        found[" ".join(words)] = said(words)
    for name, words in calls(store, work, group="pooled/timestep_stats/mlp.fc2"):
        if words[0] not in LEFT_OUT:
            found[name] = said(words)
    found["info GROUP"] = said(["info", str(store), "latents"])
    return found


if __name__ == "__main__":
    seed, store, work, out = sys.argv[1:]
    answers = run(int(seed), Path(store), Path(work))
    Path(out).write_text(json.dumps(answers), encoding="utf-8")
