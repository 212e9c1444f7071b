"""The public names are those that docs/architecture.md lists, no more and no less."""

from __future__ import annotations

from importlib import import_module

import pytest

import taqstore
from support.pages import read_table, ticked
from support.rooms import modules

LISTED = {
    ticked(module)[0]: names.partition("; rooms ")
    for module, names in read_table("docs/architecture.md", "public names")
}


def test_the_face_shows_its_names_and_rooms() -> None:
    names, _, rooms = LISTED["taqstore"]
    shown = [name for name in dir(taqstore) if not name.startswith("__")]
    assert shown == sorted([*ticked(rooms), *ticked(names.replace("`__version__`", ""))])
    assert sorted(taqstore.__all__) == sorted(ticked(names))


@pytest.mark.parametrize("module", LISTED)
def test_every_listed_name_is_there(module: str) -> None:
    held = import_module(module)
    names = ticked(LISTED[module][0])
    assert names
    assert [name for name in names if not hasattr(held, name)] == []


@pytest.mark.parametrize("module", [name for name in LISTED if name != "taqstore"])
def test_a_face_offers_what_is_listed_and_nothing_else(module: str) -> None:
    offered = getattr(import_module(module), "__all__", None)
    if offered is not None:
        assert sorted(offered) == sorted(ticked(LISTED[module][0]))


def test_every_room_of_the_face_has_public_names() -> None:
    rooms = ticked(LISTED["taqstore"][2])
    assert rooms
    for room in rooms:
        assert any(f"{module}.".startswith(f"taqstore.{room}.") for module in LISTED), room


def test_every_face_of_the_library_is_listed() -> None:
    faces = [
        module.name
        for module in modules().values()
        if module.is_face
        and not module.name.startswith("taqstore.pipelines.")
        and hasattr(import_module(module.name), "__all__")
    ]
    assert [face for face in faces if face not in LISTED] == []
