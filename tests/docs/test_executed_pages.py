"""Every block of code of every page runs, in the order of the page, on the store it speaks of."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.executed import blocks
from support.executed_folders import Folders, folders  # noqa: F401 - a fixture
from support.live_capture import needs_models
from support.page_runner import PageRunner
from support.pages import PAGES, read_page

WITH_CODE = [page for page in PAGES if "```" in read_page(page)]


@needs_models
@pytest.mark.parametrize("page", WITH_CODE)
def test_every_block_of_a_page_runs(
    taq: Runner,
    folders: Folders,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:
    runner = PageRunner(taq, folders, tmp_path, monkeypatch)
    for block in blocks(page):
        runner.run(block)


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "docs/commands.md", "docs/library.md"} <= set(WITH_CODE)
