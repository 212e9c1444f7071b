"""No command's output replaces, holds or enters a store, whatever it is called with."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from taqstore.pipelines.ingest import ingest

from support.cli_runner import Runner
from taqstore.cli import COMMANDS, cli
from taqstore.cli.output import Target
from taqstore.testing import RunShape, make_latents, make_store

SHAPE = RunShape(images=2, steps=3, blocks=1, hidden=4, image_tokens=4, text_tokens=2)
# Names under which a command may be told where to write.
OUTPUTS = {"-o", "--output", "--save-images"}
REFUSED = r"taqstore: .*(is a store|lies in a store|a store lies in this folder) \(found .*\); .*\n"


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


# Every option of every command that names an output.
WRITING = [
    pytest.param(path, command, parameter, id=" ".join((*path, parameter.opts[-1])))
    for path, command in commands(cli)  # type: ignore[arg-type]
    for parameter in command.params
    if isinstance(parameter.type, Target) or OUTPUTS & set(parameter.opts)
]


def test_every_command_that_writes_is_found() -> None:
    found = {parameter.values[0][0] for parameter in WRITING}  # type: ignore[index]
    known = {"query", "analyze", "diff", "export", "plot", "report", "profile", "evaluate"}
    assert known | {"generate"} <= found <= set(COMMANDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "s.zarr", shape=SHAPE)


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    """A folder with a store, links to it and into it, and a folder of other things around it."""
    store = shutil.copytree(made, tmp_path / "around/s.zarr")
    (tmp_path / "link").symlink_to(store)
    (tmp_path / "up").symlink_to("around")
    (tmp_path / "entry").symlink_to(store / "zarr.json")
    (store / "away").symlink_to(tmp_path)
    return tmp_path


TARGETS = (
    "around/s.zarr",
    "around/s.zarr/",
    "around",
    "up",
    "around/s.zarr/new.json",
    "around/s.zarr/zarr.json",
    "around/s.zarr/activations/mlp.fc2",
    "around/s.zarr/activations/new/new.zarr",
    "around/s.zarr/away",
    "around/../link",
    "link/new.csv",
    "up/s.zarr/new",
    "entry",
)


def tree(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def call(command: click.Command, given: click.Parameter, value: str, store: Path) -> list[str]:
    """Arguments with which a command would begin to work, were its output allowed."""
    words = []
    for parameter in command.params:
        if parameter is given:
            words += [given.opts[0], value]
        elif parameter.required:
            option = [] if isinstance(parameter, click.Argument) else [parameter.opts[0]]
            words += [*option, example(parameter, store)]
    return words


def example(parameter: click.Parameter, store: Path) -> str:
    kind: Any = parameter.type
    if parameter.name == "model":
        return "reference"
    if isinstance(kind, click.Choice):
        return str(kind.choices[0])
    if isinstance(kind, click.types.IntParamType):
        return "1"
    if isinstance(kind, click.Path):
        return __file__  # of inputs, which must exist
    return {"group": "activations/mlp.fc2"}.get(str(parameter.name), str(store))


@pytest.mark.parametrize(("path", "command", "given"), WRITING)
def test_stores_are_spared(
    taq: Runner, place: Path, path: tuple[str, ...], command: click.Command, given: click.Parameter
) -> None:
    before = tree(place)
    names = {name for parameter in command.params for name in parameter.opts}
    for force in [[], ["--force"]] if "--force" in names else [[]]:
        for target in TARGETS:
            words = call(command, given, f"{place}/{target}", place / "around/s.zarr")
            shown = taq(*path, *words, *force)
            assert (shown.code, shown.out) == (1, ""), (target, shown)
            assert re.fullmatch(REFUSED, shown.err), (target, shown)
    assert tree(place) == before
    assert sorted(p.name for p in place.iterdir()) == ["around", "entry", "link", "up"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h/x.csv", "http:// can only be read"),
        ("hf://datasets/a/b/x.csv", "hf:// can only be read"),
        ("memory://x", "names no file in a bucket"),
    ],
)
@pytest.mark.parametrize(("path", "command", "given"), WRITING)
def test_urls_that_cannot_be_written_are_refused(
    taq: Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str, ...],
    command: click.Command,
    given: click.Parameter,
    url: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = taq(*path, *call(command, given, url, tmp_path / "s.zarr"))
    assert (shown.code, shown.out, shown.err.count("\n")) == (1, "", 1)
    assert said in shown.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inner", ["around/s.zarr/t.zarr", "link/activations/t.zarr", "around"])
def test_no_store_is_made_in_or_around_a_store(taq: Runner, place: Path, inner: str) -> None:
    source = make_latents(place / "run", shape=SHAPE)
    other = place / "other.zarr"
    assert ingest([source], other).problems == []
    before = tree(place)
    for words in (["ingest", source], ["merge", place / "link", other]):
        shown = taq(*words, place / inner)
        assert (shown.code, shown.out, shown.err.count("\n")) == (1, "", 1), shown
    assert tree(place) == before


def test_an_empty_zarr_group_around_a_store_does_not_become_one(taq: Runner, place: Path) -> None:
    source = make_latents(place / "run", shape=SHAPE)
    (place / "around/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    before = tree(place / "around")
    shown = taq("ingest", source, place / "around")
    assert (shown.code, shown.err.count("\n")) == (1, 1), shown
    assert tree(place / "around") == before


def test_what_is_replaced_is_said(taq: Runner, place: Path) -> None:
    store, out = place / "around/s.zarr", place / "q.zarr"
    query = ("query", store, "activations/mlp.fc2", "min", "-o", out, "--force")
    assert taq(*query).err == f"wrote {out}\n"
    again = taq(*query)
    assert again.code == 0
    assert again.err.startswith(f"replaced {out}: a folder of ")
    (out / "notes.txt").write_text("mine")
    refused = taq(*query)
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert "not an earlier output of this kind" in refused.err
    assert (out / "notes.txt").exists()
