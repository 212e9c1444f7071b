"""Pickled prompt arrays are read as data; anything that could run is refused unread."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.sources.parts.prompts import pickled_strings

from support.source_runs import one_line
from taqstore.errors import SourceError

RNG = np.random.default_rng(3)
MANY = [f"prompt {n} ünï\n" * (n % 4) for n in RNG.integers(0, 50, 2500)]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("texts", [[], ["a"], ["a", "", "a", "é" * 300], MANY])
def test_every_protocol_numpy_writes(texts: list[str], protocol: int) -> None:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    data = pickle.dumps(array, protocol=protocol)
    assert pickled_strings(data, where="f") == texts


def test_the_module_name_of_older_numpy() -> None:
    data = pickle.dumps(np.array(["a", "b"], dtype=object), protocol=2)
    old = data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"_core" not in old
    assert pickled_strings(old, where="f") == ["a", "b"]


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 5])
@pytest.mark.parametrize("inside", [False, True])
def test_code_is_refused_and_not_run(tmp_path: Path, protocol: int, inside: bool) -> None:
    bomb: object = Bomb(tmp_path / "ran")
    if inside:
        bomb = np.array(["a", bomb], dtype=object)
    with pytest.raises(SourceError, match="--prompts FILE") as caught:
        pickled_strings(pickle.dumps(bomb, protocol=protocol), where="f.npz: prompts")
    assert one_line(str(caught.value)).startswith("f.npz: prompts:")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", 1], dtype=object),
        np.array([["a"]], dtype=object),
        np.array([b"a"], dtype=object),
        np.arange(3),
        ["a"],
        {"a": 1},
        None,
    ],
    ids=repr,
)
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(SourceError, match="never loaded"):
        pickled_strings(pickle.dumps(value), where="f")


def test_every_cut_and_flip_is_refused_or_gives_strings() -> None:
    data = pickle.dumps(np.array(["abc", "abc", "d"], dtype=object))
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x41
        for damaged in (data[:at], bytes(flipped)):
            try:
                texts = pickled_strings(damaged, where="f")
            except SourceError:
                continue
            assert all(type(text) is str for text in texts)
