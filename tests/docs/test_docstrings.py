"""Every example of a docstring is run, in a folder of its own."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

from support.rooms import modules

_EXAMPLE = re.compile(r"^\s*>>> ", re.M)
WITH_EXAMPLES = {
    name: len(found)
    for name, module in modules().items()
    if (found := _EXAMPLE.findall(module.path.read_text(encoding="utf-8")))
}


def test_examples_were_found() -> None:
    assert len(WITH_EXAMPLES) > 15
    assert {"taqstore", "taqstore.store.reader", "taqstore.testing"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that the file holds: none is skipped, none stands where no docstring is."""
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(import_module(name))
    assert found.failed == 0, capsys.readouterr().out
    assert found.attempted == WITH_EXAMPLES[name]


def test_no_example_is_skipped() -> None:
    skipped = [
        name
        for name in WITH_EXAMPLES
        if "+SKIP" in modules()[name].path.read_text(encoding="utf-8")
    ]
    assert skipped == []
