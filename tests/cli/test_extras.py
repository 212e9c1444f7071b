"""What cannot be drawn is a line on stderr; what was worked out is there all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support.cli_runner import Runner
from support.forks import forks
from support.thinned import EXPLORE
from taqstore import open_store
from taqstore.errors import TaqError
from taqstore.plot import FIGURES, make_pages, write_page
from taqstore.run.extras import extra
from taqstore.testing import RunShape, make_store

GROUP = "activations/mlp.fc2"
SHAPE = RunShape(images=2, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("extras") / "s.zarr", shape=SHAPE, mantissa_bits=10)


Bare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    """Runs a command in an installation without matplotlib, as far as imports go."""
    with forks("-matplotlib", "zarr.codecs", "taqstore.cli.plot", "taqstore.store.reader") as made:
        yield made.run


def test_a_report_is_written_without_its_figures(
    store: Path, tmp_path: Path, taq: Runner, bare: Bare
) -> None:
    """The page has every number, says what it lacks, and the exit code is 0."""
    small = ("--bits", "8", "--average", "8", "--time-groups", "1")
    done = bare("report", store, "-o", tmp_path / "bare.html", *small)
    assert done.returncode == 0, done.stderr
    left_out = [line for line in done.stderr.splitlines() if "left out" in line]
    assert left_out
    assert all(line.startswith("note: the figures of ") for line in left_out)
    assert "Traceback" not in done.stderr
    assert taq("report", store, "-o", tmp_path / "whole.html", *small).code == 0
    plain, whole = ((tmp_path / f"{n}.html").read_text("utf-8") for n in ("bare", "whole"))
    assert "<svg" in whole
    assert "<svg" not in plain
    assert whole.count("<td") == plain.count("<td") > 0
    assert plain.count(" left out: ") == len(left_out)


# matplotlib is asked for in one place for all figures that are made alike.
DRAWN = {w: row.made for w, row in FIGURES.items() if row.made != "table" and not row.needs}


@pytest.mark.parametrize(
    "kind", DRAWN if EXPLORE else {made: word for word, made in DRAWN.items()}.values()
)
def test_figures_alone_are_one_line_where_none_can_be_had(
    store: Path, tmp_path: Path, kind: str, bare: Bare
) -> None:
    done = bare("plot", kind, store, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "matplotlib" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("words", [["plot", "summary", "--group", GROUP], ["profile"]])
def test_a_table_needs_no_figures(
    store: Path, tmp_path: Path, words: list[str], taq: Runner, bare: Bare
) -> None:
    done = bare(*words, store, "-o", tmp_path / "bare")
    assert done.returncode == 0, done.stderr
    whole = taq("plot", "summary", store, "--group", GROUP, "-o", tmp_path / "whole")
    assert done.stdout.splitlines()[:-1] == whole.out.splitlines()[:-1]
    assert "max_range" in done.stdout
    name = f"summary_{GROUP.rpartition('/')[2]}.csv"
    assert (tmp_path / "bare" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    left_out = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(left_out) == (5 if words == ["profile"] else 0)


def test_the_numbers_of_a_figure_come_first(store: Path, tmp_path: Path) -> None:
    """A picture that cannot be written leaves the CSV that lies beside it."""
    opened = open_store(store)
    path = next(path for path in opened if path.startswith("activations/"))
    page = next(iter(make_pages("range", opened[path].compute(), site=path.rpartition("/")[2])))
    (tmp_path / f"{page.stem}.png").mkdir()
    (tmp_path / f"{page.stem}.png" / "in the way").touch()
    with pytest.raises(TaqError):
        write_page(page, tmp_path, ("png",))
    assert (tmp_path / f"{page.stem}.csv").is_file()


def test_whatever_is_raised_becomes_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes: list[str] = []
    with extra("a", notes):
        np.zeros(2).reshape(3)
    with extra("b", notes):
        raise TaqError("no file here")
    monkeypatch.setenv("TAQSTORE_DEBUG", "1")
    with extra("c", notes):
        raise RuntimeError
    assert notes[0].startswith("a left out: ValueError: cannot reshape")
    assert notes[1:] == ["b left out: no file here", "c left out: RuntimeError"]
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(KeyboardInterrupt), extra("d", notes):
        raise KeyboardInterrupt
    assert len(notes) == 3
