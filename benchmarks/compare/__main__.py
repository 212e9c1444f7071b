"""`python -m benchmarks.compare --before TREE --after TREE`: all rows of two trees, interleaved.

Inputs are made once; stores are made by each tree. ``--prepare`` makes them and stops: that may be
done while the machine has other work, the rest may not.
"""

from __future__ import annotations

import argparse
import compileall
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .commands import COMMANDS, RUN, Command, run
from .figures import TREES, Figure, markdown
from .questions import HERE, MODELS, OPENED, OPENED_SECONDS, QUESTIONS, ask, own, wanted_of

_SHARED = ("source", "peers")
_STORES = ("small", "full", "run")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--before", type=Path, required=True, metavar="TREE")
    parser.add_argument("--after", type=Path, default=HERE, metavar="TREE")
    parser.add_argument("--work", type=Path, default=Path("bench-work/compare"), metavar="DIR")
    parser.add_argument("--scale", default="0.2", help="of the questions' inputs")
    parser.add_argument("--rounds", type=int, default=3, help="of questions and models")
    for name in _STORES:
        parser.add_argument(f"--{name}", type=Path, metavar="STORE", help=f"the {name} store")
    parser.add_argument("--only", action="append", help="rows with this in their names")
    parser.add_argument("--prepare", action="store_true", help="make inputs and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: WORK/compared.json")
    return parser.parse_args()


def main() -> None:
    """Prepare, measure, write JSON after each row, print the table."""
    given = _arguments()
    given.work = given.work.absolute()
    trees = {"before": given.before.absolute(), "after": given.after.absolute()}
    chosen = _chosen(given.only or [""])
    for path in trees.values():
        # As of an installed package, also where the environment keeps Python from doing so.
        compileall.compile_dir(path / "taqstore", quiet=2)
        compileall.compile_dir(path / "pipelines", quiet=2)
    stores = {tree: _stores(given, tree, path) for tree, path in trees.items()}
    works = {tree: _work(given.work, tree, given.scale) for tree in TREES}
    for key in (name for name in chosen if name in QUESTIONS):
        for tree, path in trees.items():
            ask(path, "prepare", str(works[tree]), given.scale, key)
    if given.prepare:
        return
    target = given.json or given.work / "compared.json"
    found: list[Figure] = []
    for name in chosen:
        say(name)
        found += _measured(name, given, trees, stores, works)
        _write(target, trees, found)
    print("\n".join(markdown(found)))


def _chosen(parts: list[str]) -> list[str]:
    every = [*COMMANDS, *QUESTIONS, *MODELS]
    return [name for name in every if any(part in name for part in parts)]


def _measured(name, given, trees, stores, works) -> list[Figure]:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    if name in COMMANDS:
        command = COMMANDS[name]
        found = _in_turn(
            trees, command.rounds, lambda tree: run(command, trees[tree], stores[tree])
        )
        figures = [_figure(name, what, wanted, found)
                   for what, wanted in command.wanted().items()]  # fmt: skip
    elif name in MODELS:
        words, wanted = MODELS[name]
        found = _in_turn(trees, given.rounds, lambda tree: ask(trees[tree], *words))
        figures = [Figure(name, "of the floor", "x", wanted, *_both(found, "ratio"))]
    else:
        figures = _questions(name, given, trees, works)
    say(f"  {time.perf_counter() - started:.0f} s")
    return figures


def _figure(name, what, wanted, found) -> Figure:  # type: ignore[no-untyped-def]
    return Figure(name, what, "B" if what == "memory" else "s", wanted, *_both(found, what))


def _both(found: dict[str, list[dict[str, float]]], key: str) -> Iterator[list[float]]:
    return ([one[key] for one in found[tree]] for tree in TREES)


def _in_turn(trees, rounds: int, measure: Callable[[str], object]):  # type: ignore[no-untyped-def]
    """Before, after, before, after, …; a tree that fails is said, and left out."""
    found: dict[str, list] = {tree: [] for tree in trees}  # type: ignore[type-arg]
    failed: set[str] = set()
    for _ in range(rounds):
        for tree in (one for one in trees if one not in failed):
            try:
                found[tree].append(measure(tree))
            except subprocess.CalledProcessError as error:
                failed.add(tree)
                say(f"  {tree}: {str(error.stderr or error)[-1500:]}")
    return found


def _questions(key, given, trees, works) -> list[Figure]:  # type: ignore[no-untyped-def]
    found = _in_turn(
        trees, given.rounds,
        lambda tree: ask(trees[tree], "rows", str(works[tree]), given.scale, key, "3"),
    )  # fmt: skip
    figures: dict[tuple[str, str], Figure] = {}
    for tree in TREES:
        for rows in found[tree]:
            for row in rows:
                for figure, value in _of_row(key, row):
                    at = figure.row, figure.what
                    getattr(figures.setdefault(at, figure), tree).append(value)
    return list(figures.values())


def _of_row(key: str, row: dict) -> Iterator[tuple[Figure, float]]:  # type: ignore[type-arg]
    # So the default was called when it was put behind dask.
    ours, against = row["ours"].replace("default (dask)", "default"), row["against"]
    name = f"{row['question']}: {ours}"
    if row["unit"] == "B":
        return
    middle = row["ratio"]["middle"]
    wanted = wanted_of(key, ours, against)
    ratio = 1 / middle if row["inverse"] else middle
    if "time per tensor" not in row["question"]:
        yield Figure(name, f"times faster than {against}", "x", wanted), ratio
    own = OPENED_SECONDS if (key, ours) == OPENED else None
    if against == next(iter(QUESTIONS[key]))[1]:
        yield Figure(name, "time", "s", own), row["our_value"]
        if row["peak_bytes"]:
            yield Figure(name, "memory", "B"), row["peak_bytes"]


def _stores(given: argparse.Namespace, tree: str, path: Path) -> dict[str, Path]:
    """Stores that commands read: those given, else made by the tree."""
    found = {}
    for name in _STORES:
        if getattr(given, name):
            found[name] = getattr(given, name).absolute()
        else:
            found[name] = given.work / tree / f"{name}.zarr"
            if not found[name].exists():
                say(f"making {name}.zarr, {tree}")
                found[name].parent.mkdir(parents=True, exist_ok=True)
                _make(name, path, found[name])
    return found


def _make(name: str, tree: Path, store: Path) -> None:
    if name != "run":
        ask(tree, "made", str(store), name)
        return
    for line in RUN:
        run(Command(line), tree, {"run": store})


def _work(work: Path, tree: str, scale: str) -> Path:
    """Inputs of a tree: sources and copies for peers are the same for both."""
    folder = work / tree / f"scale-{float(scale):g}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in _SHARED:
        shared = work / "shared" / f"scale-{float(scale):g}" / name
        shared.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).symlink_to(shared)
    return folder.parent


def _write(target: Path, trees: dict[str, Path], found: list[Figure]) -> None:
    made = {
        "trees": {tree: _commit(path) for tree, path in trees.items()},
        "environment": _environment(trees["after"]),
        "asked_by_own_benchmarks": sorted(own),
        "compared": [one.as_json() for one in found],
    }
    target.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")


def _commit(tree: Path) -> str:
    done = subprocess.run(
        ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def _environment(tree: Path) -> dict[str, object]:
    found: dict[str, object] = ask(tree, "environment")
    return found


def say(text: str) -> None:
    """Talk goes to stderr; stdout has the table."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
