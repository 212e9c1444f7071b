"""Commands as a user types them: wall clock, CPU time and memory of all their processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .figures import Wanted

_SAMPLED_EVERY = 0.05


@dataclass(frozen=True)
class Command:
    """One command line.

    Parameters
    ----------
    line
        Words after ``taqstore``; ``{small}``, ``{full}`` and ``{run}`` are stores, ``{out}`` a new
        folder.
    wall, memory
        Seconds and bytes it may take.
    rounds
        How often each tree runs it.
    changes
        It writes into its store, of which each run has a copy.
    """

    line: str
    wall: float | None = None
    memory: float | None = None
    rounds: int = 5
    changes: bool = False

    def wanted(self) -> dict[str, Wanted | None]:
        """Bounds by what is measured."""
        bounds = {"wall": self.wall, "CPU": None, "memory": self.memory}
        return {what: None if bound is None else Wanted(bound) for what, bound in bounds.items()}


_MB = 1e6
_VARIANTS = (
    *("float/a8-static", "float/a4-step", "clipped/a8-static", "clipped/a8-step"),
    *(f"rtn/{inputs}" for inputs in ("a16", "a8-static", "a8-step", "a4-static", "a4-step")),
    *(f"gptq/{inputs}" for inputs in ("a16", "a8-static", "a8-step", "a4-step", "a8-step-mse")),
)
COMMANDS: dict[str, Command] = {
    "info, small store": Command("info {small}", wall=0.45),
    "info, store of a run": Command("info {run}", wall=0.45),
    "query, small store": Command("query {small} activations/mlp.fc2 max", wall=0.45),
    "analyze scales, percentile": Command("analyze scales {full} --clip percentile", rounds=3),
    "analyze scales, mse at 4 bits": Command("analyze scales {full} --clip mse --bits 4", rounds=3),
    "analyze bits": Command("analyze bits {full}", wall=3, memory=400 * _MB),
    "analyze groups": Command("analyze groups {full}", wall=2, memory=400 * _MB),
    "export quant-config --outliers": Command(
        "export quant-config {full} --outliers -o {out}/config.json", memory=400 * _MB, rounds=3
    ),
    "report": Command("report {full} -o {out}/report.html", wall=10, memory=600 * _MB, rounds=3),
    "plot range": Command("plot range {full} -o {out}/plots", wall=4, rounds=3),
    "evaluate, 14 variants, 8 images, 28 steps": Command(
        "evaluate {run} -o {out}/evaluation" + "".join(f" --variant {one}" for one in _VARIANTS),
        wall=300,
        rounds=1,
        changes=True,
    ),
}
RUN = (
    "generate {run} --model reference --images 8 --steps 28",
    "collect {run} --second-moment full",
    "gptq {run}",
    "cache {run} --stride 7",
)
"""Lines that make the store of a run."""


def run(command: Command, tree: Path, stores: dict[str, Path]) -> dict[str, float]:
    """Run it once with the sources of a tree.

    Returns
    -------
    Wall and CPU seconds, and bytes: the largest resident set of a process, or the most that all its
    processes were seen to hold together, whichever is more. Pages that several share count once.
    """
    with tempfile.TemporaryDirectory() as out:
        places = dict(stores)
        if command.changes:
            used = [name for name in stores if f"{{{name}}}" in command.line]
            copies = {name: Path(out) / stores[name].name for name in used}
            places |= {name: shutil.copytree(stores[name], copy) for name, copy in copies.items()}
        line = [word.format(**places, out=out) for word in command.line.split()]
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "taqstore", *line], cwd=tree, env=environment(tree),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        return _waited(process, started)


def _waited(process: subprocess.Popen[bytes], started: float) -> dict[str, float]:
    watch = _Watch(process.pid)
    watch.start()
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.over.set()
    watch.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, stderr=said)
    memory = float(max(used.ru_maxrss * 1024, watch.most))
    return {"wall": wall, "CPU": used.ru_utime + used.ru_stime, "memory": memory}


def environment(tree: Path) -> dict[str, str]:
    """The environment of a process that imports from a tree."""
    return {**os.environ, "PYTHONPATH": str(tree), "MLX_DISABLE_COMPILE": "1"}


class _Watch(threading.Thread):
    """Adds up what a process and all below it hold."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.most, self.over = pid, 0, threading.Event()

    def run(self) -> None:
        pause = _SAMPLED_EVERY
        while not self.over.wait(pause):
            began = time.perf_counter()
            self.most = max(self.most, sum(map(_held, _below(self.pid))))
            # Who is looked at stands still meanwhile: a hundredth of the time.
            pause = max(_SAMPLED_EVERY, 100 * (time.perf_counter() - began))


def _below(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        found += [one for child in children for one in _below(int(child))]
    return found


def _held(pid: int) -> int:
    """Resident bytes, of pages that others hold as well their share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended
        return 0
