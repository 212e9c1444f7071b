"""Whatever answers from statistics says on stderr which of them are no numbers.

Commands, analyses, formats and figures are taken from their tables: a new one has to say it too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.cli_runner import Runner
from support.planted import SHAPE, STEPS, fill, planted_store, put
from taqstore.analysis import ANALYSES
from taqstore.cli import COMMANDS
from taqstore.export.formats import export, taking
from taqstore.names import SECOND_MOMENTS
from taqstore.plot import FIGURES
from taqstore.plot.draw import draw
from taqstore.store.reader import open_store

LAST = STEPS[-1]
FIRST = f"first in mm0.img at step {LAST}, image 1;"
NOTE = f"note: activations/mlp.fc2: 2 non-finite values (1 NaN, 1 +Inf), {FIRST}"
# Sums leave out the positions, and so count these.
SUMMED = (
    "note: second_moments/mlp.fc2: 2 positions with non-finite values are left out, "
    "first in mm0.img; 2 layers"
)
SMALL = ("--bits", "8", "--average", "8", "--time-groups", "1")
# Every command: its words, where it answers from statistics; who else sees to it, where not.
WORDS: dict[str, list[str]] = {
    "info": ["{s}"],
    "query": ["{s}", "activations/mlp.fc2", "tensor_max"],
    "analyze": ["scales", "{s}"],
    "diff": ["{s}", "{s}"],
    "export": ["act-scales", "{s}", "-o", "{o}/a.npz"],
    "plot": ["range", "{s}", "-o", "{o}/plots"],
    "report": ["{s}", "-o", "{o}/r.html", *SMALL],
    "verify": ["{s}"],
    "profile": ["{s}", "-o", "{o}/figures"],
}  # fmt: skip
ELSEWHERE = {
    "serve": "answers say it: tests/serve/api",
    "generate": "refuses them: tests/pipelines/run",
    "collect": "counts them: tests/pipelines/collect",
    "adaround": "needs a model",
    "gptq": "needs a model: tests/pipelines/gptq",
    "evaluate": "needs a model",
    "gate": "needs a model",
    "sensitivity": "needs a model",
    "cache": "holds no statistics",
    "ingest": "refuses them",
    "merge": "gives no answer",
    "plan": "gives no answer",
    "pull": "gives no answer",
    "push": "gives no answer",
    "repair": "gives no answer",
    "upgrade": "gives no answer",
    "completion": "opens no store",
    "doctor": "opens no store",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plants = {
        (1, LAST, "mm0.img.mlp.fc2"): put(np.nan, 4),
        (1, LAST, "mm1.img.mlp.fc2"): put(1e6, 0),
    }
    return planted_store(tmp_path_factory.mktemp("planted") / "s.zarr", plants, moments=True)


def test_every_command_is_thought_of() -> None:
    assert {*WORDS, *ELSEWHERE} == set(COMMANDS)


@pytest.fixture(scope="module")
def reported(store: Path) -> Path:
    """Where the report of the store is, once it was made."""
    return store.with_name("r.html")


@pytest.mark.parametrize("command", WORDS)
def test_commands_say_it(
    command: str, store: Path, taq: Runner, tmp_path: Path, reported: Path
) -> None:
    words = [word.format(s=store, o=tmp_path) for word in WORDS[command]]
    done = taq(command, *words)
    if command == "report":
        (tmp_path / "r.html").rename(reported)
    assert done.code == 0, done.err
    told = done.err.replace(f"note: {store}: ", "note: ")
    assert told.count(NOTE) == (2 if command == "diff" else 1), done.err


ASKED = [word for word, row in ANALYSES.items() if row.of_statistics]


@pytest.mark.parametrize("word", ASKED)
def test_analyses_say_it(word: str, store: Path, taq: Runner, tmp_path: Path) -> None:
    more: list[Any] = []
    if word == "smooth":
        tall = np.random.default_rng(1).normal(size=(5, SHAPE.ffn)).astype(np.float32)
        layers = open_store(store)["activations/mlp.fc2"]["layer"].values
        np.savez(tmp_path / "w.npz", **{f"{layer}.mlp.fc2.weight": tall for layer in layers})
        more = ["--weights", tmp_path / "w.npz"]
    if word == "enough":
        more = ["--along", "steps"]  # of three batches nothing can be told
    stores = [store] * (1 + ANALYSES[word].second)
    done = taq("analyze", word, *stores, "--site", "mlp.fc2", *more)
    assert done.code == 0, done.err
    assert (SUMMED if ANALYSES[word].source == SECOND_MOMENTS else NOTE) in done.err
    assert "non-finite" not in done.out


def test_an_analysis_tells_of_its_selection(store: Path, taq: Runner) -> None:
    assert "non-finite" not in taq("analyze", "moments", store, "--batch", "0").err
    one = taq("analyze", "moments", store, "--layer", "mm1.img").err
    assert "1 positions with non-finite values are left out, first in mm1.img" in one
    assert "non-finite" not in taq("analyze", "scales", store, "--batch", "0").err
    assert "non-finite" not in taq("analyze", "scales", store, "--site", "mlp.fc1").err
    one = taq("analyze", "scales", store, "--layer", "mm1.img").err
    assert "1 non-finite values (1 +Inf), first in mm1.img" in one


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site without a finite value anywhere."""
    layers = ("mm0.img", "mm0.txt", "mm1.img")
    plants = {
        (image, step, f"{layer}.mlp.fc2"): fill(np.nan)
        for image in range(SHAPE.images)
        for step in STEPS
        for layer in layers
    }
    return planted_store(tmp_path_factory.mktemp("nothing") / "s.zarr", plants, moments=True)


@pytest.mark.parametrize("word", [w for w in ASKED if w != "smooth"])
def test_a_site_without_a_finite_value(word: str, nothing: Path, taq: Runner) -> None:
    stores = [nothing] * (1 + ANALYSES[word].second)
    more = ["--along", "steps"] if word == "enough" else []
    done = taq("analyze", word, *stores, "--site", "mlp.fc2", *more)
    assert done.code in (0, 1), done.err
    assert "non-finite" in done.err


def test_a_report_of_a_site_without_a_finite_value(
    nothing: Path, taq: Runner, tmp_path: Path
) -> None:
    done = taq("report", nothing, "-o", tmp_path / "r.html", *SMALL)
    assert done.code == 0, done.err
    assert "non-finite" in done.err


# Figures of whole stores are of judged images; how many are enough is told of more than two.
@pytest.mark.parametrize(
    "kind", [word for word, row in FIGURES.items() if row.made != "store" and word != "enough"]
)
def test_figures_say_it(kind: str, store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    other = {"other": opened} if "other" in FIGURES[kind].options else {}
    _, notes = draw(kind, opened, tmp_path, formats=(), **other)
    assert [note for note in notes if f"note: {note}".startswith(NOTE)]


@pytest.mark.parametrize("name", taking("allow_incomplete"))
def test_formats_say_it(name: str, store: Path, tmp_path: Path) -> None:
    if name == "imatrix":
        pytest.importorskip("gguf")
    if name == "postgelu-npz":
        pytest.skip("made of a pooled source alone; ingest refuses what is no number there")
    out = tmp_path / ("a.npz" if name == "act-scales" else "out")
    summary = export(name, open_store(store, chunks=None), out)
    assert [note for note in summary.notes if f"note: {note}".startswith(NOTE)]


def test_documents_have_a_field(store: Path, taq: Runner) -> None:
    for words in (["info", store], ["info", store, "activations/mlp.fc2"], ["verify", store]):
        (found,) = json.loads(taq(*words, "--json").out)["nonfinite"]
        assert (found["group"], found["nan"], found["plus_inf"]) == ("activations/mlp.fc2", 1, 1)
        assert found["first"] == {"layer": "mm0.img", "step": LAST, "images": [1]}
        assert (found["layers"], found["images"]) == (["mm0.img", "mm1.img"], [1])
    assert json.loads(taq("info", store, "activations/mlp.fc1", "--json").out)["nonfinite"] == []


def test_the_report_has_a_table(store: Path, taq: Runner, reported: Path) -> None:
    if not reported.exists():
        assert taq("report", store, "-o", reported, *SMALL).code == 0
    page = reported.read_text(encoding="utf-8")
    assert "Values that are no numbers" in page
    assert f"mm0.img at step {LAST}, image 1" in page
