"""Folders are rooms: who may know whom, and how full a room may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest

from support.rooms import ROOT, Module, imports, modules, room_imports

ARCHITECTURE = ROOT / "docs" / "architecture.md"
PIPELINES = "taqstore.pipelines"
# Files of one room at most. Where a folder has a file for every word that a user types, it is as
# long as the list of words, and a file is found all the same.
FULL = 16
WORDS = ("taqstore.cli", "taqstore.analysis", "taqstore.plot.kinds")


def importers(*packages: str) -> set[str]:
    """Modules that import one of the packages, anywhere in the file."""
    return {
        module.name
        for module in modules().values()
        for source, _ in imports(module)
        if source.split(".")[0] in packages
    }


def listed_rooms() -> Iterator[str]:
    """Rooms as docs/architecture.md has them, top of the list first."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    table = text.split("<!-- table: rooms -->")[1].split("\n\n")[0]
    for shown in re.findall(r"^\| `([a-z_/]+)/` \|", table, re.M):
        name = shown.replace("/", ".")
        yield f"taqstore.{name}" if name.startswith("pipelines") else name


def test_rooms_form_no_circle() -> None:
    graph = {room: set(others) for room, others in room_imports().items()}
    assert len(graph) > 20, "the rooms were not found"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]  # each room imports the next one
        steps = [
            f"{here} imports {there} in {', '.join(sorted(room_imports()[here][there]))}"
            for here, there in pairwise(circle)
        ]
        pytest.fail("\n".join(steps))


def test_rooms_import_only_what_stands_above_them_in_the_architecture() -> None:
    listed = list(listed_rooms())
    assert sorted(listed) == sorted(room_imports()), "docs/architecture.md lists other rooms"
    wrong = [
        f"{room} imports {other}, below it: {', '.join(sorted(files))}"
        for room, others in room_imports().items()
        for other, files in others.items()
        if listed.index(other) > listed.index(room)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_room_is_crowded() -> None:
    files = Counter(module.room for module in modules().values())
    assert files.pop("taqstore") <= 6
    assert all(files.pop(room) > 0 for room in WORDS)
    assert {room: n for room, n in files.items() if n > FULL} == {}


def test_the_library_knows_pipelines_by_name_in_the_command_line_only() -> None:
    inside = [m for m in modules().values() if not m.room.startswith(PIPELINES)]
    # The face shows `taqstore.pipelines` as a room; it imports it when it is used.
    knowing = {m.name for m in inside if any(knows_pipelines(s, n) for s, n in imports(m))}
    assert knowing == {"taqstore"}
    named = {module.room for module in inside if f'"{PIPELINES}.' in source_of(module)}
    assert named == {"taqstore.cli"}


def knows_pipelines(source: str, name: str | None) -> bool:
    return f"{source}.{name}.".startswith((f"{PIPELINES}.", "pipelines."))


def source_of(module: Module) -> str:
    return module.path.read_text(encoding="utf-8")


def test_only_models_import_mlx() -> None:
    libraries = ("mlx", "diffusionkit", "transformers", "mflux")
    by_name = re.compile(rf'import_module\(\s*"(?:{"|".join(libraries)})\b')
    found = importers(*libraries)
    found |= {module.name for module in modules().values() if by_name.search(source_of(module))}
    assert found
    assert {name for name in found if not name.startswith(f"{PIPELINES}.models.")} == set()


def test_only_plot_imports_matplotlib() -> None:
    found = importers("matplotlib")
    assert found
    assert {name for name in found if not name.startswith("taqstore.plot.")} == set()
