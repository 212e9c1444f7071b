"""Power cuts: file operations recorded, and every state rebuilt that a disk may be left in.

The model is that of the ALICE study (Pillai and others, OSDI 2014): what was written to a file
since its last fsync may be lost or torn, and every name that appeared, moved or vanished since the
last fsync of its folder may be as it was before, each on its own.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from campaign.kills import small_format1
from campaign.stores import Values, check_flagged, check_read, fill, one_kind, values_of, write
from campaign.trials import Trials, spread
from taqstore import create_store, open_store
from taqstore.errors import StoreError
from taqstore.metadata.provenance import make_record
from taqstore.upkeep.repair import repair_store
from taqstore.upkeep.upgrade import upgrade_store
from taqstore.upkeep.verify import verify_store

# Subsets of unsynced names: all of up to so many, a choice of more.
_EVERY_SUBSET, _CHOSEN = 5, 12
_TORN = ("kept", "lost", "half", "zeros")


@dataclass(frozen=True)
class Op:
    """One operation: `make` a file or folder, `write`, `fsync`, `move`, `drop`, or `told`."""

    kind: str
    path: str = ""
    other: str = ""
    content: bytes = b""
    told: Any = None


@dataclass
class Recorder:
    """File operations of this process below one folder, in order."""

    folder: str
    ops: list[Op] = field(default_factory=list)
    on: bool = False
    _sizes: dict[str, int] = field(default_factory=dict)

    def install(self) -> None:
        """Follow this process from now on; recording is switched by `on`."""
        sys.addaudithook(self._audit)
        write, fsync = os.write, os.fsync

        def writing(descriptor: int, content: Any) -> int:
            done = write(descriptor, content)
            self._add("write", self._path(descriptor), content=bytes(memoryview(content)[:done]))
            return done

        def syncing(descriptor: int) -> None:
            fsync(descriptor)
            self._add("fsync", self._path(descriptor))

        os.write, os.fsync = writing, syncing  # type: ignore[assignment]

    def _path(self, descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}") if self.on else ""

    def _add(self, kind: str, path: object, **what: Any) -> None:
        place = str(path)
        if not self.on or not place.startswith(f"{self.folder}/"):
            return
        if kind in ("fsync", "move") and os.path.isfile(place):
            self._catch_up(place)
        if kind == "write":
            self._sizes[place] = self._sizes.get(place, 0) + len(what["content"])
        elif kind == "move":
            self._sizes[what["other"]] = self._sizes.pop(place, 0)
        elif kind == "make":
            self._sizes[place] = 0
        self.ops.append(Op(kind, place, **what))

    def _catch_up(self, path: str) -> None:
        """What was written by other means than `os.write`, by the time that it matters."""
        content, known = Path(path).read_bytes(), self._sizes.get(path)
        if known is not None and len(content) > known:
            self._add("write", path, content=content[known:])

    def _audit(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if name == "os.rename":
            self._add("move", arguments[0], other=str(arguments[1]))
        elif name in ("os.remove", "os.rmdir") and _can_go(_below(arguments)):
            self._add("drop", _below(arguments))
        elif name == "os.mkdir" and _is_new(arguments[0]):
            self._add("make", arguments[0], told="folder")
        elif name == "open" and _creates(arguments[2]) and _is_new(arguments[0]):
            self._add("make", arguments[0])

    @contextmanager
    def recording(self) -> Iterator[list[Op]]:
        """Record what is done inside."""
        self.ops, self._sizes, self.on = [], {}, True
        try:
            yield self.ops
        finally:
            self.on = False

    def tell(self, *what: Any) -> None:
        """Mark that something was promised by now."""
        if self.on:
            self.ops.append(Op("told", told=what))


def _is_new(path: object) -> bool:
    """Whether making this does something; events come before what they tell of."""
    place = Path(str(path))
    return place.parent.is_dir() and not os.path.lexists(place)


def _can_go(path: str) -> bool:
    """Whether there is such a file, or such a folder and nothing in it."""
    return os.path.isfile(path) or (os.path.isdir(path) and not os.listdir(path))


def _creates(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & os.O_CREAT)


def _below(arguments: tuple[Any, ...]) -> str:
    """Path of what is removed; `shutil.rmtree` names it below an open folder."""
    path, folder = arguments[0], arguments[1]
    if isinstance(folder, int) and folder >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
    return str(path)


class _File:
    """Content of one file: what is on disk, and what was written since."""

    def __init__(self, synced: bytes = b"", fresh: bytes = b"", *, is_folder: bool = False) -> None:
        self.synced, self.fresh, self.is_folder = synced, fresh, is_folder

    def content(self, torn: str) -> bytes:
        """What a power cut leaves."""
        if torn == "kept" or not self.fresh:
            return self.synced + self.fresh
        half = self.fresh[: len(self.fresh) // 2]
        return self.synced + {"lost": b"", "half": half, "zeros": bytes(len(self.fresh))}[torn]


@dataclass
class Disk:
    """Names and files as operations left them, and which names are not on disk yet.

    Parameters
    ----------
    names
        Files by path, as they are on disk for sure.
    pending
        Changes of names since: each a folder, and what to do with `names`.
    """

    names: dict[str, _File]
    live: dict[str, _File] = field(default_factory=dict)
    pending: list[tuple[str, str, str, _File | None]] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """A folder as it lies there, all of it on disk."""
        names = {
            str(path): _File(is_folder=True) if path.is_dir() else _File(path.read_bytes())
            for path in folder.rglob("*")
        }
        return cls(names, dict(names))

    def do(self, op: Op) -> None:
        """Follow one operation."""
        parent = os.path.dirname(op.path)
        if op.kind == "make":
            made = self.live[op.path] = _File(is_folder=op.told == "folder")
            self.pending.append((parent, op.path, "", made))
        elif op.kind == "write":
            self.live[op.path].fresh += op.content
        elif op.kind == "move":
            self._move(op, parent)
        elif op.kind == "drop":
            self.live.pop(op.path, None)
            self.pending.append((parent, op.path, "", None))
        elif op.kind == "fsync":
            self._sync(op.path)

    def _move(self, op: Op, parent: str) -> None:
        for path in [p for p in self.live if p == op.path or p.startswith(f"{op.path}/")]:
            self.live[op.other + path[len(op.path) :]] = self.live.pop(path)
        moved = self.live[op.other]
        self.pending.append((parent, op.path, op.other, moved))

    def _sync(self, path: str) -> None:
        file = self.live.get(path)
        if file is None or file.is_folder:
            # Both folders of a move hold it: the journal commits it with either.
            done = [p for p in self.pending if p[0] == path or os.path.dirname(p[2]) == path]
            for change in done:
                _apply(self.names, change)
            gone = {change[1] for change in done if change[2]}
            self.pending = [p for p in self.pending if p not in done and p[1] not in gone]
        else:
            file.synced, file.fresh = file.synced + file.fresh, b""

    def states(self, rng: random.Random) -> Iterator[dict[str, bytes | None]]:
        """Every content that the folder may have after a power cut now; None is a folder."""
        fresh = any(file.fresh for file in self.live.values())
        for kept in _subsets(len(self.pending), rng):
            names = dict(self.names)
            for change, keep in zip(self.pending, kept, strict=True):
                if keep:
                    _apply(names, change)
            for torn in _TORN if fresh else _TORN[:1]:
                yield {
                    path: None if file.is_folder else file.content(torn)
                    for path, file in names.items()
                }


def _apply(names: dict[str, _File], change: tuple[str, str, str, _File | None]) -> None:
    _, path, target, made = change
    if made is not None and target:
        for old in [p for p in names if p.startswith(f"{path}/")]:
            names[target + old[len(path) :]] = names.pop(old)
        names.pop(path, None)
        names[target] = made  # also where the name that it was made under never came to the disk
    elif made is not None:
        names[path] = made
    else:
        names.pop(path, None)


def _subsets(count: int, rng: random.Random) -> Iterator[tuple[bool, ...]]:
    if count <= _EVERY_SUBSET:
        yield from itertools.product((True, False), repeat=count)
        return
    yield (True,) * count
    yield (False,) * count
    for number in range(count):  # each one alone lost, and each alone kept
        yield tuple(i != number for i in range(count))
        yield tuple(i == number for i in range(count))
    for _ in range(_CHOSEN):
        yield tuple(rng.random() < 0.5 for _ in range(count))


def _reachable(state: dict[str, bytes | None], folder: str) -> dict[str, bytes | None]:
    """What of a state has all its folders."""
    found: dict[str, bytes | None] = {}
    for path in sorted(state):
        parent = os.path.dirname(path)
        if parent == folder or found.get(parent, b"") is None:
            found[path] = state[path]
    return found


@dataclass(frozen=True)
class Scenario:
    """What is done to a store: `prepare` it, `act` under the recorder, `resume` after the cut."""

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path, Recorder], object]
    resume: Callable[[Path], object]


def _fill(path: Path, recorder: Recorder, *, replace: bool = False) -> None:
    with create_store(path) as store:
        for template in one_kind():
            fill(store, template, replace=replace, told=recorder.tell)
        store.record(make_record("campaign", parameters={}, inputs=[], groups=[], counts={}))
        recorder.tell("record")


def _damaged(path: Path) -> None:
    write(path, one_kind())
    (path / "latents/zarr.json").unlink()
    (path / "latents/x/c/1/0/0/0/0").unlink()
    (path / "blocks/img/written/c.0.0").write_bytes(b"torn")


def _resumed(path: Path) -> None:
    write(path, one_kind())


SCENARIOS = [
    Scenario("a new store", lambda path: None, _fill, _resumed),
    Scenario("growth", lambda p: write(p, one_kind([3])), _fill, _resumed),
    Scenario("--force", _resumed, lambda p, r: _fill(p, r, replace=True), _resumed),
    Scenario("repair", _damaged, lambda p, r: repair_store(p), lambda p: _mended(p)),
    Scenario("upgrade", small_format1, lambda p, r: upgrade_store(p), upgrade_store),
]


def _mended(path: Path) -> None:
    repair_store(path)
    _resumed(path)


def power_cuts(folder: Path, *, most: int | None) -> Iterator[Trials]:
    """Cut the power at every operation of every scenario, in every state; or `most` states."""
    recorder = Recorder(os.path.realpath(folder))
    recorder.install()
    for number, scenario in enumerate(SCENARIOS):
        work = Path(recorder.folder, str(number))
        work.mkdir()
        yield _Cuts(scenario, work, recorder).run(most)


@dataclass
class _Cuts:
    scenario: Scenario
    folder: Path
    recorder: Recorder

    def run(self, most: int | None) -> Trials:
        trials = Trials("power cut", self.scenario.name)
        path = self.folder / "s.zarr"
        self.scenario.prepare(path)
        disk = Disk.of(self.folder)
        with self.recorder.recording() as ops:
            self.scenario.act(path, self.recorder)
        expected = self._expected(path)
        for told, state, label in self._states(disk, ops, most):
            with trials.trial(label):
                self._restore(state)
                self._check(path, expected, told)
        return trials

    def _expected(self, path: Path) -> Values:
        if self.scenario.name == "repair":
            whole = self.folder.with_name("whole.zarr")
            _resumed(whole)
            return values_of(open_store(whole))
        return values_of(open_store(path, incomplete=self.scenario.name == "upgrade"))

    def _states(
        self, disk: Disk, ops: Sequence[Op], most: int | None
    ) -> Iterator[tuple[list[Any], dict[str, bytes | None], str]]:
        """What was promised by then, the state, and where the cut was; each state once.

        All states of all cuts; or, of `most` cuts, one state each.
        """
        rng, told, seen = random.Random(7), list[Any](), set[int]()
        cuts = set(spread(len(ops) + 1, most))
        end = _contents(self.folder)
        for number, op in enumerate([*ops, Op("end")]):
            states = disk.states(rng) if number in cuts else iter(())
            for state in states if most is None else rng.sample([*states], number in cuts):
                reached = _reachable(state, str(self.folder))
                key = hash((len(told), *((path, raw) for path, raw in reached.items())))
                if key not in seen:
                    seen.add(key)
                    yield list(told), reached, f"before {op.kind} {number} of {len(ops)}"
            if op.kind == "told":
                told.append(op.told)
            else:
                disk.do(op)
        whole = {p: None if f.is_folder else f.content("kept") for p, f in disk.live.items()}
        missed = sorted(p for p in {*whole, *end} if whole.get(p, "") != end.get(p, ""))
        assert not missed, f"the recorder missed something: {missed}"

    def _restore(self, state: dict[str, bytes | None]) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        for path in sorted(state):
            raw = state[path]
            if raw is None:
                Path(path).mkdir()
            else:
                Path(path).write_bytes(raw)

    def _check(self, path: Path, expected: Values, told: Sequence[Any]) -> None:
        if self.scenario.name != "repair":
            self._check_promised(path, expected, told)
        self.scenario.resume(path)
        assert not verify_store(path).damage
        if self.scenario.name == "upgrade":
            check_flagged(path, expected)
        else:
            assert check_read(path, expected), "not completed"

    def _check_promised(self, path: Path, expected: Values, told: Sequence[Any]) -> None:
        try:
            store = open_store(path)
        except StoreError as error:
            if told or "no store here" not in str(error):
                raise
            return
        damage = [f"{f.where}: {f.what}" for f in verify_store(path).damage]
        assert not damage, f"a flagged item is wrong: {damage}"
        check_flagged(path, expected)
        for what in told:
            if what == ("record",):
                assert store.provenance, "a record is lost"
            else:
                group, item = what
                assert store.mask(group)[tuple(item)], f"{group} {item} was flagged and is not"


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p): None if p.is_dir() else p.read_bytes() for p in folder.rglob("*")}
