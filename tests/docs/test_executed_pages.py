"""Every block of code of every page runs, in the order of the page, on the store it speaks of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.executed import blocks
from support.executed_folders import Folders, folders  # noqa: F401 - a fixture
from support.live_capture import needs_models
from support.page_runner import PageRunner, undrawn
from support.pages import PAGES, read_page
from support.s3_server import S3Server

# Pages whose commands make every picture that they show.
SHOWN = ("docs/examples.md", "docs/good-enough.md")
# One of them draws in earnest what a model filled; `tests/plot` draws figures of every kind.
DRAWN = SHOWN[1:]
WITH_CODE = [page for page in PAGES if "```" in read_page(page)]


@pytest.fixture
def buckets(
    request: pytest.FixtureRequest, page: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Buckets that a page speaks of, empty, and the environment that reaches them."""
    names = set(re.findall(r"^\$ .*?s3://([a-z0-9-]+)/", read_page(page), re.M))
    if not names:
        yield
        return
    server: S3Server = request.getfixturevalue("s3")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    for name in names:
        server.make_bucket(name)
    yield
    for name in names:
        server.drop_bucket(name)


@needs_models
@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize("page", WITH_CODE)
def test_every_block_of_a_page_runs(
    taq: Runner,
    folders: Folders,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
) -> None:
    if page not in DRAWN:
        undrawn(monkeypatch)
    runner = PageRunner(taq, folders, tmp_path, monkeypatch)
    with closing(runner):
        for block in blocks(page):
            runner.run(block)
    if page in SHOWN:
        made = [path.stem for path in tmp_path.rglob("*.png")]
        shown = re.findall(r"examples/(\w+)\.png", read_page(page))
        assert [name for name in shown if not any(m.startswith(name) for m in made)] == []


def test_pages_with_code_are_found() -> None:
    assert {"README.md", "docs/commands.md", "docs/library.md"} <= set(WITH_CODE)
