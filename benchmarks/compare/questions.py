"""Questions of `python -m benchmarks` and ratios of models that are asked of both trees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .commands import environment
from .figures import Wanted

HERE = Path(__file__).resolve().parents[2]
_CHILD = Path(__file__).with_name("child.py")

_FASTER = {"at_least": True}
# By question: what is wanted of our way (None: of all) against whom.
QUESTIONS: dict[str, dict[tuple[str | None, str], Wanted]] = {
    "layer": {
        ("default", "np.load"): Wanted(50, **_FASTER),
        ("default", "h5py"): Wanted(1 / 3, **_FASTER),
        ("chunks=None", "tensorstore"): Wanted(1, **_FASTER),
    },
    "step": {(None, "np.load"): Wanted(5, **_FASTER)},
    "minibatch": {(None, "np.load of raw .npy"): Wanted(1, **_FASTER)},
    "analyses-absmax": {(None, "NumPy loop over npz"): Wanted(5, **_FASTER)},
    "analyses-percentile": {(None, "NumPy loop over npz"): Wanted(10, **_FASTER)},
    "analyses-mse": {(None, "torch HistogramObserver"): Wanted(50, **_FASTER)},
    "export-outliers": {(None, "source analyser"): Wanted(8, **_FASTER)},
}
OPENED = ("layer", "chunks=None, opened each time")
"""The question and our way whose own time is wanted, too."""
OPENED_SECONDS = Wanted(0.010)
MODELS: dict[str, tuple[list[str], Wanted]] = {
    "collect against bare forwards": (["live", "collect", "8", "28"], Wanted(1.4)),
    "cache against forwards and a raw write": (["live", "cache", "8", "28"], Wanted(1.3)),
    "AdaRound iteration with A8, reference model": (["adaround", "reference", "15"], Wanted(1.15)),
    "AdaRound iteration with A8, hidden 1536": (["adaround", "wide", "5"], Wanted(1.15)),
}
"""Ratios of what is asked to a floor, and what they may be."""


own: set[str] = set()
"""What trees were asked by their own benchmarks, for this tree's import what they lack."""


def ask(tree: Path, *words: str) -> Any:
    """Ask a process with the sources of a tree; by this tree's benchmarks, else by its own.

    Raises
    ------
    subprocess.CalledProcessError
        Neither can.
    """
    try:
        return _asked(tree, HERE, words)
    except subprocess.CalledProcessError:
        if tree == HERE:
            raise
        own.add(" ".join(words[-2:]))
        return _asked(tree, tree, words)


def _asked(tree: Path, asking: Path, words: tuple[str, ...]) -> Any:
    command = [sys.executable, str(_CHILD), str(asking), *words]
    done = subprocess.run(
        command, cwd=tree, env=environment(tree), capture_output=True, check=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def wanted_of(key: str, ours: str, against: str) -> Wanted | None:
    """The bound of one comparison."""
    bounds = QUESTIONS[key]
    return bounds.get((ours, against), bounds.get((None, against)))
