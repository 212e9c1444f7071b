"""Figures of whole stores: their numbers against plain loops, their axes, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from support.sensitivity_store import LINEARS, base, deltas, write_sensitivities
from support.trajectory_groups import DRIFTS, STEPS, trajectory_groups
from taqstore import open_store
from taqstore.errors import MissingError, MisuseError
from taqstore.plot.draw import draw, pages
from taqstore.plot.figures import FIGURES

WHOLE = [word for word, row in FIGURES.items() if row.made == "store"]


@pytest.fixture(scope="module")
def sensitive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sensitive") / "s.zarr"
    write_sensitivities(path, formats=("rtn-w4",), images=(0, 1))
    return write_sensitivities(path, unit="step", formats=("a4-static", "a8-static"), images=(0,))


def flat_cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = (part.astype(np.float64).ravel() for part in (a, b))
    return float(np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)))


def test_cosines_of_variants_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    groups = trajectory_groups()
    paths, _ = draw("gate", groups, tmp_path)
    assert [path.name for path in paths] == ["gate.png", "gate.csv"]
    rows = pd.read_csv(paths[1]).set_index(["variant", "step"])
    exact = groups["trajectories/float"]
    for number, name in enumerate(DRIFTS):
        other = groups[f"trajectories/{number:016x}"]
        for step in range(STEPS + 1):
            found = [flat_cosine(exact["x"].values[i, step], other["x"].values[i, step])
                     for i in range(5)]  # fmt: skip
            row = rows.loc[name, step]
            assert_allclose([row["cosine"], row["least"]], [np.mean(found), min(found)], rtol=1e-14)
            assert min(found) - 1e-12 <= row["lower"] <= row["cosine"] <= row["upper"] <= 1
        out = [flat_cosine(exact["output"].values[i, 2], other["output"].values[i, 2])
               for i in range(5)]  # fmt: skip
        assert_allclose(rows.loc[name, 2]["output_cosine"], np.mean(out), rtol=1e-14)
    assert rows["output_cosine"].isna().sum() == len(DRIFTS)  # the final step has no output


def test_seeds_that_leave_are_marked_where_they_first_do() -> None:
    groups = trajectory_groups({"bad": 0.6, "good": 0.01})
    (page,) = pages("gate", groups, min_cosine=0.97)
    exact, bad = groups["trajectories/float"]["x"].values, groups["trajectories/" + 16 * "0"]
    first = [
        next(s for s in range(STEPS + 1) if flat_cosine(exact[i, s], bad["x"].values[i, s]) < 0.97)
        for i in range(5)
    ]
    table = page.table[page.table["variant"] == "bad"]
    assert table["bifurcated"].tolist() == [first.count(step) for step in range(STEPS + 1)]
    assert page.table[page.table["variant"] == "good"]["bifurcated"].sum() == 0
    latent = page.figure.axes[0]
    crosses = [line for line in latent.lines if line.get_marker() == "x"]
    sigma = groups["trajectories/float"]["sigma"].values
    assert sorted(crosses[0].get_xdata()) == sorted(sigma[first])
    bottom, top = latent.get_ylim()
    assert bottom > 1 - 0.97 > top  # one is above


def test_two_weight_sets_of_one_name_are_told_apart() -> None:
    groups = trajectory_groups({"gptq/a16": 0.1, "rtn/a16": 0.2})
    twice = groups.pop(f"trajectories/{1:016x}").assign_attrs(variant="gptq/a16")
    (page,) = pages("gate", {**groups, "trajectories/abcdef0123456789": twice})
    names = list(dict.fromkeys(page.table["variant"]))
    assert names == ["gptq/a16 (000000)", "gptq/a16 (abcdef)"]


def test_a_map_shows_every_linear_where_it_is(sensitive: Path) -> None:
    first, second = pages("sensitivity", open_store(sensitive))
    assert (first.stem, second.stem) == ("sensitivity_rtn-w4", "sensitivity_steps")
    table = first.table.set_index("target")
    assert set(table.index) == set(LINEARS)
    change = deltas("linear", "rtn-w4", (0, 1))
    norms = np.linalg.norm(base((0, 1)).reshape(2, -1), axis=1)
    errors = np.linalg.norm(change.reshape(2, len(LINEARS), -1), axis=2) / norms[:, None]
    assert_allclose(table.loc[list(LINEARS), "latent_error"], errors.mean(axis=0), rtol=1e-6)
    image, text, outside = first.figure.axes[:3]
    names = [label.get_text() for label in image.get_xticklabels()]
    assert names[:4] == ["q_proj", "k_proj", "v_proj", "attn.o_proj"]
    for ax, stream in ((image, "img"), (text, "txt")):
        cells = ax.collections[0].get_array()
        assert cells.shape == (2, len(names))
        expected = table.loc[f"mm1.{stream}.mlp.fc2", "latent_error"]
        assert cells[1, names.index("mlp.fc2")] == expected
    labels = [label.get_text() for label in outside.get_yticklabels()]
    assert labels == ["x_embedder.embed.image", "final_layer.final.linear"]
    assert set(second.table["format"]) == {"a4-static", "a8-static"}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_store_without_says_what_makes_it(kind: str) -> None:
    with pytest.raises(MissingError, match=r"make one: taqstore [a-z]+ STORE"):
        pages(kind, {})


@pytest.mark.parametrize(
    ("kind", "choice", "flag"),
    [("gate", {"layers": ["mm0*"]}, "--layer"), ("sensitivity", {"group": "x"}, "--group")],
)
def test_nothing_of_a_store_is_chosen(kind: str, choice: dict[str, object], flag: str) -> None:
    with pytest.raises(MisuseError, match=f"leave {flag} out"):
        pages(kind, trajectory_groups(), **choice)
