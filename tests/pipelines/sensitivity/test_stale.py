"""What a sensitivity was made of is another by now: it is never gone on with in silence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.collect.second_moments import SecondMoments
from taqstore.pipelines.gptq.gptq import gptq
from taqstore.pipelines.gptq.settings import GptqSettings
from taqstore.pipelines.sensitivity.sensitivity import sensitivity

from taqstore.errors import LayoutError
from taqstore.kinds.sensitivity import scores
from taqstore.run.mode import Mode
from taqstore.store.reader import open_store

TARGET = "mm0.img.mlp.fc1"


def run(store: Path, format: str, **mode: Any) -> Any:
    return sensitivity(store, formats=[format], targets=[TARGET], seeds=1, mode=Mode(**mode))


def observe(store: Path, stride: int) -> None:
    moments, sites = SecondMoments(None), ["mlp.fc1", "mlp.fc2"]
    collect(store, stride=stride, sites=sites, second_moments=moments, mode=Mode(force=True))


@pytest.fixture(scope="module")
def made(judged_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With second moments, and a set whose sites differ in bits."""
    path = Path(shutil.copytree(judged_store, tmp_path_factory.mktemp("made") / "run.zarr"))
    observe(path, 2)
    gptq(path, set="made", settings=GptqSettings(bits=3), sites=["mlp.fc1"])
    gptq(path, set="made", sites=["mlp.fc2"])
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(made, tmp_path / "run.zarr"))


def all_steps(store: Path) -> None:
    observe(store, 1)


def other_site(store: Path) -> None:
    """Of sites that differ in a setting, the setting tells nothing any more."""
    gptq(store, set="made", settings=GptqSettings(bits=3), sites=["mlp.fc2"], mode=Mode(force=True))


def other_statistics(store: Path) -> None:
    """The same settings, and other weights."""
    all_steps(store)
    gptq(store, set="made", settings=GptqSettings(bits=3), sites=["mlp.fc1"], mode=Mode(force=True))


@pytest.mark.parametrize(
    ("format", "change", "named"),
    [
        ("made", other_site, "set content mlp.fc2"),
        ("made", other_statistics, "set content mlp.fc1"),
        ("a4-static", all_steps, "statistics activations/mlp.fc1 content"),
        ("comfy-gptq", all_steps, "statistics second_moments/mlp.fc1 content"),
    ],
)
def test_stale_sensitivities_are_refused(
    store: Path, format: str, change: Callable[[Path], None], named: str
) -> None:
    run(store, format)
    assert run(store, format, resume=True).written == 0
    change(store)
    with pytest.raises(LayoutError, match=named):
        run(store, format, resume=True)
    assert run(store, format, force=True).groups[f"sensitivity/linear/{format}"].written == 1


def test_scores_of_other_statistics_are_made_again(store: Path) -> None:
    run(store, "rtn-w3")

    def known() -> xr.Dataset:
        return scores(open_store(store))["linear", "rtn-w3"].load()

    before = known()
    assert run(store, "rtn-w3", resume=True).written == 0
    all_steps(store)
    assert run(store, "rtn-w3", resume=True).groups["scores/linear/rtn-w3"].written == 1
    assert known()["moment_error"].values != before["moment_error"].values
    assert known()["weight_error"].values == before["weight_error"].values
