"""SIGKILL before every file event of every writing command."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from campaign.forks import Forks
from campaign.stores import every_kind, files_of, one_kind, write
from campaign.trials import Trials, spread
from support import merge_runs
from support.format1 import unpack
from support.same_stores import assert_same_stores
from taqstore import open_store
from taqstore.errors import StoreError
from taqstore.testing import RunShape, make_run_folder
from taqstore.testing.damage import edit_json, flip_bit
from taqstore.testing.store import make_store
from taqstore.upkeep.verify import verify_store

SIGKILLED = -9
_SHAPE = RunShape(images=2, steps=2, blocks=1, hidden=4, image_tokens=3, text_tokens=2,
    latent=(2, 3), channels=4, stats_stride=2, cache_stride=2, cache_images=1)  # fmt: skip
_KEPT_OF_FORMAT_1 = ("zarr.json", "provenance", "latents", "blocks", "reconstruction")


@dataclass(frozen=True)
class Case:
    """One writing command.

    Parameters
    ----------
    name
        For the table.
    prepare
        Makes what the command works on, in an empty folder.
    arguments
        Of the command, run in that folder as `IN/...`.
    again
        Arguments that complete it after a kill.
    out
        What it writes: a store if the name ends in `.zarr`.
    """

    name: str
    prepare: Callable[[Path], object]
    arguments: tuple[str, ...]
    again: tuple[str, ...]
    out: str = "s.zarr"


def _run(folder: Path, images: int = 2) -> Path:
    shape = RunShape(**{**_SHAPE.__dict__, "images": images})
    return make_run_folder(folder / "run", shape=shape, parts=("latents", "activations"))


def _grown(folder: Path) -> None:
    write(folder / "s.zarr", one_kind([3]))
    write(folder / "b.zarr", one_kind([1]))


def _ingested(folder: Path) -> None:
    from taqstore.pipelines.ingest import ingest

    ingest([_run(folder, images=1)], folder / "s.zarr", only=["latents"])
    shutil.rmtree(folder / "run")
    _run(folder)


def _whole(folder: Path) -> None:
    from taqstore.pipelines.ingest import ingest

    ingest([_run(folder)], folder / "s.zarr", only=["latents"])


def _halves(folder: Path) -> None:
    for name, images in (("a.zarr", [0]), ("b.zarr", [1])):
        merge_runs.make(folder / name, images)


def _broken(folder: Path) -> None:
    """Metadata, an item, closed flags, a record of a run, and what killed commands left."""
    write(folder / "s.zarr", every_kind())
    edit_json(folder / "s.zarr/latents/zarr.json", lambda d: d["attributes"].update(a=1))
    (folder / "s.zarr/blocks/img/x/zarr.json").unlink()
    flip_bit(folder / "s.zarr/latents/x/c/1/0/0/0/0")
    (folder / "s.zarr/samples/x/c/0/0/0/0").unlink()
    flip_bit(folder / "s.zarr/activations/mlp.fc1/written/c.0")
    flip_bit(folder / "s.zarr/provenance/json/c/0")


def _rootless(folder: Path) -> None:
    write(folder / "s.zarr", one_kind())
    flip_bit(folder / "s.zarr/zarr.json")
    (folder / "s.zarr/blocks/zarr.json").unlink()


def small_format1(store: Path) -> None:
    """Some groups of the store of format 1 that is kept for ever."""
    made = unpack(store.parent)
    for path in made.iterdir():
        if path.name not in _KEPT_OF_FORMAT_1:
            shutil.rmtree(path)
    edit_json(made / "zarr.json", lambda root: root.pop("consolidated_metadata"))
    made.rename(store)


def _of_format_1(folder: Path) -> None:
    small_format1(folder / "s.zarr")


def _two_stores(folder: Path) -> None:
    """The store that an old output was made from, and the one to make the new output from."""
    shape = RunShape(images=1, steps=4, blocks=1, hidden=4, image_tokens=6, text_tokens=3,
        stats_stride=1)  # fmt: skip
    for seed, name in enumerate(("old.zarr", "in.zarr")):
        make_store(folder / name, shape=shape, seed=seed, mantissa_bits=2)


def _sampled(folder: Path) -> None:
    """Latents of a tiny model, which lies beside them."""
    from support.live_models import TINY
    from support.live_store import make_live_store

    make_live_store(folder, TINY, images=3, steps=2).rename(folder / "s.zarr")


def _live(command: str, *options: str) -> Case:
    """A command that runs a model, and writes and flags behind it."""
    words = (command, "IN/s.zarr", "--stride", "1", "--local-ckpt", "IN/w.safetensors", *options)
    return Case(command, _sampled, words, (*words, "--resume"))


def _output(out: str, *command: str) -> Case:
    """A command that replaces an output of its own."""
    word, *rest = command
    whole = (*(word.split()), "IN/in.zarr", *rest, "-o", f"IN/{out}")
    return Case(word, _two_stores, whole, whole, out)


RESUMED = ("ingest", "IN/run", "IN/s.zarr", "--resume")
CASES = [
    Case("ingest", _run, RESUMED[:-1], RESUMED),
    Case("growth", _ingested, RESUMED, RESUMED),
    Case("ingest --force", _whole, (*RESUMED[:-1], "--force"), (*RESUMED[:-1], "--force")),
    Case("merge", _halves, *[("merge", "IN/a.zarr", "IN/b.zarr", "IN/s.zarr")] * 2),
    Case("pull", _halves, *[("pull", "IN/a.zarr", "IN/s.zarr")] * 2),
    Case(
        "pull of a part",
        _halves,
        *[("pull", "IN/a.zarr", "IN/s.zarr", "--step", "0:4", "--layer", "*.img")] * 2,
    ),
    Case("repair", _broken, *[("repair", "IN/s.zarr")] * 2),
    Case("repair of a root", _rootless, *[("repair", "IN/s.zarr")] * 2),
    Case("upgrade", _of_format_1, *[("upgrade", "IN/s.zarr")] * 2),
    _output("q.csv", "query", "activations/mlp.fc1", "max"),
    _output("q.json", "export quant-config", "--force"),
    _output("pngs", "plot range"),
    _output("r.html", "report", "--force"),
    _output("stats", "export timestep-stats", "--force"),
]


LIVE = [_live("cache"), _live("collect", "--sites", "mlp.fc2,attn.qkv")]
"""Those that need MLX and DiffusionKit."""


def killed_commands(
    folder: Path, *, most: int | None, cases: Sequence[Case] = CASES
) -> Iterator[Trials]:
    """Kill every writing command before each of its events, or `most` of them."""
    with Forks() as forks:
        for number, case in enumerate(cases):
            yield _Killed(case, folder / str(number), forks).run(most)


@dataclass
class _Killed:
    case: Case
    folder: Path
    forks: Forks

    def run(self, most: int | None) -> Trials:
        trials = Trials("killed anywhere", self.case.name)
        base, whole, work = (self.folder / name for name in ("base", "whole", "work"))
        base.mkdir(parents=True)
        self.case.prepare(base)
        if "--force" in self.case.arguments and self._is_output:
            old = tuple(word.replace("in.zarr", "old.zarr") for word in self.case.arguments)
            assert self._do(old, base)[0] == 0, f"{self.case.name} does not run"
        shutil.copytree(base, work)  # outputs name the place that they are made in
        code, events = self._do(self.case.arguments, work)
        assert code == 0, f"{self.case.name} does not run: {code}"
        work.rename(whole)
        for event in spread(events, most):
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work)
            with trials.trial(f"event {event} of {events}"):
                killed, _ = self._do(self.case.arguments, work, event)
                assert killed in (SIGKILLED, code), f"exit code {killed}"
                self._check_after_kill(work, base, whole)
                again, _ = self._do(self.case.again, work)
                assert again == 0 or self._is_refused(again), f"exit code {again} when run again"
                self._check_end(work, whole, again)
        return trials

    def _do(self, arguments: tuple[str, ...], folder: Path, event: int = -1) -> tuple[int, int]:
        placed = (argument.replace("IN/", f"{folder}/") for argument in arguments)
        return self.forks.run(*placed, event=event)

    @property
    def _is_output(self) -> bool:
        return not self.case.out.endswith(".zarr")

    def _is_refused(self, code: int) -> bool:
        """Whether an output that was finished before the kill is not replaced unasked."""
        return self._is_output and "--force" not in self.case.again and code == 1

    def _check_after_kill(self, work: Path, base: Path, whole: Path) -> None:
        store = work / self.case.out
        if self._is_output:
            old, new = (_output_of(folder / self.case.out) for folder in (base, whole))
            found = _output_of(store)
            # Figures are files of their own: each is whole.
            part = self.case.name.startswith("plot") and found.items() <= new.items()
            assert part or found in (old, new), "neither the old output nor the new one"
            return
        if self.case.name.startswith("repair"):
            return  # damaged to begin with: the second run has to end all the same
        try:
            open_store(store)
        except StoreError:
            assert not files_of(store) or not any("/c" in name for name in files_of(store))
            assert not (base / self.case.out).exists(), "the store does not open any more"
            return
        assert [f.where for f in verify_store(store).damage] == []

    def _check_end(self, work: Path, whole: Path, again: int) -> None:
        ours, theirs = work / self.case.out, whole / self.case.out
        if self._is_output:
            assert _output_of(ours) == _output_of(theirs)
            names = {path.name for path in work.iterdir()} if again == 0 else set()
            assert names <= {path.name for path in whole.iterdir()}, f"left behind: {names}"
            return
        assert [f.where for f in verify_store(ours).damage] == []
        if self.case.name.startswith("repair"):
            left, right = files_of(ours), files_of(theirs)
            # A group may still say what was coming: all of it is there.
            names = {name for name in {*left, *right} if not name.endswith("zarr.json")}
            other = [name for name in names if left.get(name) != right.get(name)]
            assert not other, f"not what one repair leaves: {other}"
        else:
            assert_same_stores(ours, theirs)
        names = {path.name for path in work.iterdir() if not path.name.endswith(".lock")}
        assert names <= {path.name for path in whole.iterdir()}, f"left behind: {names}"
        left = [str(note.where) for note in verify_store(ours).notes if "killed" in note.what]
        assert not left, f"left behind: {left}"


def _output_of(path: Path) -> Mapping[str, bytes]:
    """An output, file or folder; what a killed command was about to put there left out."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {n: raw for n, raw in files_of(path).items() if ".partial" not in n}
