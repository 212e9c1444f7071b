"""Several writers of different items and several readers at once, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from campaign.stores import Values, check_flagged, check_read, fill, one_kind, values_of, write
from campaign.trials import Trials
from taqstore import create_store, open_store
from taqstore.errors import StoreError
from taqstore.store.reader import Store
from taqstore.upkeep.verify import verify_store

_ROOT = Path(__file__).parents[2]
_WRITERS, _READERS, _IMAGES = 3, 2, 4
_PATIENCE = 120


def crowds(folder: Path, *, seconds: float) -> Iterator[Trials]:
    """Fill one store after another, each by a crowd, for so long; one store at least."""
    trials, started, number = Trials("writers and readers at once", "one store"), monotonic(), 0
    images = range(_WRITERS * _IMAGES)
    whole = folder / "whole.zarr"
    write(whole, one_kind(images))
    expected = values_of(open_store(whole))
    while number == 0 or monotonic() - started < seconds:
        store, number = folder / f"{number}.zarr", number + 1
        with trials.trial(f"store {number}"):
            _crowd(store, whole)
            assert not verify_store(store).damage
            opened = open_store(store, incomplete=True)
            check_flagged(opened, _in_order_of(opened, expected))
            write(store, one_kind(images))
            opened = open_store(store, incomplete=True)
            assert check_read(store, _in_order_of(opened, expected)), "not completed"
    yield trials


def _in_order_of(store: Store, expected: Values) -> Values:
    """What was expected, images in the order in which writers came to each group of a store."""
    found = {}
    for group in store:
        there = expected[group, "image"]
        order = store[group]["image"].values
        places = [int((there == image).nonzero()[0][0]) for image in order]
        for (of, name), values in expected.items():
            if of == group:
                found[of, name] = values[places] if len(values) == len(there) else values
    return found


def _crowd(store: Path, whole: Path) -> None:
    roles = [("write", str(number)) for number in range(_WRITERS)]
    roles += [("read", str(whole))] * _READERS
    done = store.with_suffix(".done")
    processes = [_start(store, *role) for role in roles]
    try:
        said = [process.communicate(timeout=_PATIENCE)[0] for process in processes[:_WRITERS]]
        done.touch()
        said += [process.communicate(timeout=_PATIENCE)[0] for process in processes[_WRITERS:]]
    finally:
        for process in processes:
            process.kill()
    for role, process, text in zip(roles, processes, said, strict=True):
        last = (text.strip().splitlines() or [""])[-1]
        assert process.returncode == 0, f"{role[0]}: {last}"


def _start(store: Path, *role: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(_ROOT), str(_ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-m", "campaign.crowd", str(store), *role],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )


def _write(store: Path, number: int) -> None:
    """Images of one writer, opened and closed one after another so that flags are closed often."""
    for image in range(number * _IMAGES, (number + 1) * _IMAGES):
        with create_store(store) as writer:
            for template in one_kind([image]):
                fill(writer, template)


def _read(store: Path, whole: Path) -> None:
    """Read and verify until the writers are done, and once more."""
    expected, rounds, last = values_of(open_store(whole)), 0, False
    while not last:
        last = store.with_suffix(".done").exists()
        try:
            opened = open_store(store, incomplete=True)
        except StoreError as error:
            if "no store here" not in str(error):
                raise
            continue
        check_flagged(opened, _in_order_of(opened, expected))
        damage = verify_store(store).damage
        assert not damage, f"called damaged: {damage[0].where}: {damage[0].what}"
        rounds += 1
    assert rounds > 1, "nothing was read while it was written"


if __name__ == "__main__":
    place, act, what = sys.argv[1:]
    if act == "write":
        _write(Path(place), int(what))
    else:
        _read(Path(place), Path(what))
