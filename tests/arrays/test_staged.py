"""What is staged: no more than may be, and nothing once its process is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taqstore.arrays.staged import VARIABLE, Staged, size_of, staging_bytes
from taqstore.errors import MisuseError


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def area(temporary: Path) -> Iterator[Staged]:
    area = Staged(1000)
    yield area
    area.remove()


def test_what_was_kept_is_read_again(area: Staged) -> None:
    assert area.read("a") is None
    area.keep("a", b"1234")
    area.keep("a", b"12345")
    assert area.read("a") == b"12345"
    area.drop("a")
    assert area.read("a") is None
    assert list(area.folder.iterdir()) == []


def test_the_least_lately_used_makes_room(area: Staged) -> None:
    for name in "abc":
        area.keep(name, name.encode() * 300)
    assert area.read("a") == b"a" * 300
    area.keep("d", b"d" * 300)
    assert [name for name in "abcd" if area.read(name) is not None] == ["a", "c", "d"]
    area.keep("e", b"e" * 1001)
    assert area.read("e") is None
    assert sum(path.stat().st_size for path in area.folder.iterdir()) == 900


def test_many_threads_stay_within_the_bound(area: Staged) -> None:
    def work(number: int) -> None:
        area.keep(str(number), bytes([number]) * (50 + number))
        found = area.read(str(number))
        assert found is None or found == bytes([number]) * (50 + number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert 500 < sum(path.stat().st_size for path in area.folder.iterdir()) <= 1000


def test_large_pieces_are_mapped(temporary: Path) -> None:
    area = Staged(8 << 20)
    content = os.urandom(3 << 20)
    area.keep("a", content)
    found = area.read("a")
    assert isinstance(found, memoryview)
    assert found == content
    area.remove()
    assert found == content
    assert list(temporary.iterdir()) == []


def test_a_folder_that_someone_cleaned_up_costs_nothing_but_fetching(area: Staged) -> None:
    area.keep("a", b"1")
    for path in area.folder.iterdir():
        path.unlink()
    assert area.read("a") is None
    area.folder.rmdir()
    area.keep("b", b"1")
    assert area.read("b") is None


_RUN = """
import os, signal, sys
from taqstore.arrays.staged import Staged
area = Staged(1000)
area.keep("a", b"1234")
assert len(list(area.folder.iterdir())) == 1
print(area.folder.name, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["well", "killed"])
def test_nothing_is_left_of_a_process_that_is_gone(temporary: Path, end: str) -> None:
    stranger = temporary / "taqstore-staged.elsewhere-1.abcd.partial"
    stranger.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, end],
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    left = temporary / done.stdout.strip()
    assert left.exists() == (end == "killed")
    living = Staged(1000)
    assert not left.exists()
    assert stranger.exists()
    Staged(1000).remove()
    assert living.folder.exists()
    living.remove()


def test_areas_are_for_their_user_alone(area: Staged) -> None:
    assert area.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("20GB", 20 * 10**9), ("1.5 MB", 1_500_000), ("7k", 7000), ("2T", 2 * 10**12)],
)
def test_sizes(text: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert size_of(text) == expected
    monkeypatch.setenv(VARIABLE, text)
    assert staging_bytes() == expected
    assert staging_bytes(3) == 3


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 stone", "1e9"])
def test_no_sizes(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(MisuseError, match="no size"):
        staging_bytes()
