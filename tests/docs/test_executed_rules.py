"""The rules by which code of pages is run see what breaks them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.error import URLError

import pytest

from support.cli_runner import Runner
from support.executed import Block, PageError, blocks_of, missing_words, small
from support.executed_folders import Folders
from support.page_runner import PageRunner
from taqstore.testing import RunShape, make_store

SESSION = "```\n$ taqstore --version\n```\n"


def only(text: str) -> Block:
    (block,) = blocks_of("page.md", text)
    return block


@pytest.fixture
def runner(taq: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PageRunner:
    return PageRunner(taq, Folders(tmp_path), tmp_path / "run", monkeypatch)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\ntaqstore info x.zarr\n```\n", "neither a session nor Python"),
        ("```bash\ntaqstore info x.zarr\n```\n", "neither a session nor Python"),
        ("text\n\n" + SESSION, "no `runs on: FOLDER`"),
        ("```python\n1\n```\n", "no `runs on: FOLDER`"),
    ],
)
def test_a_block_is_run_or_says_why_not(text: str, told: str) -> None:
    with pytest.raises(PageError, match=told):
        list(blocks_of("page.md", text))
    (left_out,) = blocks_of("page.md", text.replace("```", "<!-- not run: why -->\n```", 1))
    assert left_out.skipped == "why"


def test_a_reason_is_that_of_the_next_block_alone() -> None:
    text = f"<!-- not run: why -->\n{SESSION}\n<!-- runs on: empty -->\n\nWords.\n\n{SESSION}\n"
    first, second, third = blocks_of("page.md", f"{text}{SESSION}")
    assert (first.skipped, second.skipped, third.skipped) == ("why", "", "")
    assert (second.folder, third.folder) == ("empty", "empty")
    assert (first.line, second.line) == (2, 10)


def test_commands_have_what_is_shown_below_them_and_their_exit_codes() -> None:
    text = "$ a b \\\n    c\nshown\n...\n\n$ d\n"
    first, second = only(f"<!-- runs on: empty -->\n<!-- exits: 0 1 -->\n```\n{text}```").commands()
    assert (first.text.split(), first.shown, first.code) == (["a", "b", "c"], ("shown", "..."), 0)
    assert (second.text, second.shown, second.code) == ("d", (), 1)
    with pytest.raises(PageError, match="1 exit codes of 2 commands"):
        only(f"<!-- runs on: empty -->\n<!-- exits: 1 -->\n```\n{text}```").commands()


def test_a_server_goes_on_while_its_page_does(runner: PageRunner, tmp_path: Path) -> None:
    make_store(tmp_path / "run" / "empty" / "run.zarr", shape=RunShape(images=1, blocks=1))
    asked = (
        "import urllib.request\n"
        "answer = urllib.request.urlopen('http://127.0.0.1:8765/')\n"
        "assert answer.status == 200\n"
    )
    begun = "<!-- runs on: empty -->\n```\n$ taqstore serve run.zarr --open --port 80 &\n```\n"
    serving, asking = blocks_of("page.md", f"{begun}```python\n{asked}```\n")
    assert serving.commands()[0].served == (["run.zarr"], [])
    with closing(runner):
        runner.run(serving)
        runner.run(asking)
    with pytest.raises(URLError):
        runner.run(asking)


def test_numbers_are_made_small_and_never_larger() -> None:
    assert small(["generate", "x", "--num-images", "32", "--steps", "2"]) == (
        ["generate", "x", "--num-images", "4", "--steps", "2"]
    )
    assert small(["generate", "x", "--num-images", "1"])[-2:] == ["--steps", "4"]
    assert small(["cache", "x", "--images", "0-7,9"]) == ["cache", "x", "--images", "0-3,3"]
    assert small(["info", "x"]) == ["info", "x"]


def test_lines_without_numbers_have_to_be_printed() -> None:
    shown = ("site     layer", "mlp.fc2  mm0.img", "... 86 more rows", "...", "", "site gone")
    printed = "site  layer\nmlp.fc2      mm0.img\n"
    assert missing_words(shown, printed) == ["site gone"]


@pytest.mark.parametrize(
    ("session", "told"),
    [
        ("$ taqstore info gone.zarr", "exit code 1, not 0"),
        ("$ taqstore infos gone.zarr", "exit code 2, not 0"),
        ("$ false", "exit code 1, not 0"),
        ("$ taqstore --version\nanother program", "is shown to print"),
        ("$ echo one two\none three", "is shown to print"),
    ],
)
def test_a_session_that_is_not_as_shown_fails(runner: PageRunner, session: str, told: str) -> None:
    with pytest.raises(PageError, match=told):
        runner.run(only(f"<!-- runs on: empty -->\n```\n{session}\n```\n"))


def test_python_of_a_page_shares_its_names_and_its_folder(runner: PageRunner) -> None:
    page = "<!-- runs on: empty -->\n```python\nx = 1\n```\n"
    page += "```python\nopen(f'{x}', 'w').close()\n```\n"
    for block in blocks_of("page.md", page + "```\n$ ls\n1\n```\n"):
        runner.run(block)
    with pytest.raises(NameError):
        runner.run(only("<!-- runs on: empty -->\n```python\ny\n```\n"))
    assert [path.name for path in Path.cwd().iterdir()] == ["1"]
