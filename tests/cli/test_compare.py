"""`diff`, `merge`, `analyze smooth` and `analyze order` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from support.builders import write_latents
from taqstore.cli import cli
from taqstore.errors import MissingError, TaqError
from taqstore.store.reader import open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(images=3, blocks=2, hidden=8, image_tokens=6, text_tokens=3, stats_stride=5)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stores")
    stores = [make_store(folder / name, shape=SHAPE, seed=s) for s, name in enumerate("ab")]
    return stores[0], stores[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


def test_diff_prints_the_biggest_movers_first(pair: tuple[Path, Path]) -> None:
    done = run("diff", *pair, "--limit", 5)
    assert done.exit_code == 0
    head, *rows = done.output.splitlines()
    assert head.split()[:3] == ["site", "step", "layer"]
    column = head.split().index("jensen_shannon")
    values = [float(row.split()[column]) for row in rows[:5]]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] <= values[0] <= 1
    assert "more rows" in rows[-1]


def test_diff_as_json_and_csv(pair: tuple[Path, Path], tmp_path: Path) -> None:
    document = json.loads(run("diff", *pair, "--by", "range_ratio", "--json").output)
    rows = document["tables"][0]["rows"]
    far = [abs(np.log(row["range_ratio"])) for row in rows]
    assert far == sorted(far, reverse=True)
    assert run("diff", *pair, "-o", tmp_path / "d.csv").exit_code == 0
    assert len((tmp_path / "d.csv").read_text().splitlines()) == len(rows) + 1


def test_diff_of_any_variable(pair: tuple[Path, Path]) -> None:
    group, layer = "activations/mlp.fc2", "mm0.img"
    done = run("diff", *pair, group, "mean", "--layer", layer, "--json")
    rows = json.loads(done.output)["tables"][0]["rows"]
    a, b = (open_store(p)[group]["mean"].sel(layer=layer).astype("f8") for p in pair)
    expected = float(abs(b - a).max())
    assert max(row["difference_max"] for row in rows) == pytest.approx(expected, rel=1e-15)
    assert run("diff", *pair, "--json", "--csv").exit_code == 2


def test_merge(tmp_path: Path) -> None:
    write_latents(tmp_path / "a", [0, 1])
    write_latents(tmp_path / "b", [2])
    done = run("merge", tmp_path / "a", tmp_path / "b", tmp_path / "out")
    assert done.exit_code == 0
    assert done.output.splitlines()[1].split() == ["latents", "3", "0"]
    again = run("merge", tmp_path / "a", tmp_path / "b", tmp_path / "out", "--json")
    assert json.loads(again.output)["skipped"] == {"latents": 3}
    assert open_store(tmp_path / "out")["latents"].sizes["image"] == 3
    with pytest.raises(TaqError, match=r"image 0, 1 of \S+/a is in \S+/a too"):
        run("merge", tmp_path / "a", tmp_path / "a", tmp_path / "c")


def test_smooth_with_weights_of_a_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    weights = {
        f"{layer}.mlp.fc2.weight": np.random.default_rng(i).normal(size=(8, 32))
        for i, layer in enumerate(("mm0.img", "mm0.txt", "mm1.img"))
    }
    np.savez(tmp_path / "w.npz", **weights)
    done = run(
        *("analyze", "smooth", pair[0], "--weights", tmp_path / "w.npz", "--site", "mlp.fc2"),
        *("--rule", "viditq", "--cut", "0.5", "--strength", "0.4", "--json"),
    )
    assert done.exit_code == 0
    tables = json.loads(done.output)["tables"]
    rows = next(t["rows"] for t in tables if "time_range" in t["dims"] and "channel" in t["dims"])
    assert len(rows) == 2 * 3 * 32
    row = rows[-1]
    w = np.abs(weights["mm1.img.mlp.fc2.weight"])[:, 31].max()
    expected = row["activation_absmax"] ** 0.4 / w**0.6
    assert row["factor"] == pytest.approx(expected, rel=1e-13)


def test_smooth_without_weights_says_what_to_do(pair: tuple[Path, Path]) -> None:
    with pytest.raises(MissingError, match=r"--weights FILE\.safetensors or \.npz"):
        run("analyze", "smooth", pair[0])


def test_order(pair: tuple[Path, Path]) -> None:
    done = run("analyze", "order", pair[0], "--orders", 6, "--site", "mlp.fc1", "--json")
    tables = json.loads(done.output)["tables"]
    rows = next(t["rows"] for t in tables if t["dims"][1:] == ["step", "layer"])
    assert len(rows) == 3 * 3
    assert all(row["alpha_low"] <= row["alpha"] <= row["alpha_high"] for row in rows)
    assert any(row["alpha_spread_share"] > 0 for row in rows)


def test_new_options_of_old_analyses(pair: tuple[Path, Path]) -> None:
    for line in (
        ("analyze", "temporal", pair[0], "--bits", 4, "--clip", "mse", "--site", "mlp.fc1"),
        ("analyze", "outliers", pair[0], "--spike", 2, "--site", "mlp.fc1"),
    ):
        assert run(*line, "--json").exit_code == 0
