"""Lazy package faces: names that are imported when they are first used.

A face may offer a function called like the module that holds it (`analysis.scales`, as the user
types it). Importing that module makes Python bind the module's name in the package; a face keeps
such bindings out, so that the name means the function whatever was imported before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_face(package: str, homes: Mapping[str, str], *, rooms: Sequence[str] = ()) -> None:
    """Give a package names that live in its modules; to be called in its `__init__`.

    Parameters
    ----------
    package
        Its ``__name__``.
    homes
        Public name -> full name of the module that holds it.
    rooms
        Public packages and modules inside it, imported when used.
    """
    members: dict[str, Any] = {name: _Name(name, home) for name, home in homes.items()}
    module: Any = sys.modules[package]
    module.__all__ = sorted({*module.__dict__.get("__all__", ()), *homes})
    module.__class__ = type("Face", (_Face,), {**members, "_rooms": tuple(rooms)})


class _Face(ModuleType):
    _rooms: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name in self._rooms:
            return import_module(f"{self.__name__}.{name}")
        what = f"module {self.__name__!r} has no attribute {name!r}"
        raise AttributeError(what, name=name, obj=self)  # Python then says what was meant

    def __dir__(self) -> list[str]:
        dunder = [name for name in self.__dict__ if name.startswith("__")]
        return sorted({*dunder, *self.__all__, *self._rooms})


class _Name:
    """One public name of a face, fetched from its home at every use."""

    def __init__(self, name: str, home: str) -> None:
        self._name, self._home = name, home

    def __get__(self, face: ModuleType, owner: type) -> Any:
        return getattr(import_module(self._home), self._name)

    def __set__(self, face: ModuleType, value: object) -> None:
        # Python binds a module of this name when it is imported: the name stays the function's.
        if not isinstance(value, ModuleType):
            raise AttributeError(f"set {self._name} where it lives, in {self._home}")


def named(text: str) -> Any:
    """What a row of a table names as ``module:name``, imported now."""
    module, name = text.split(":")
    return getattr(import_module(module), name)
