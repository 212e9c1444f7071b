"""Figures by two processes are those of one, to the byte, and so are what is said and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import pytest
import xarray as xr

import taqstore.plot.apart as module
from taqstore.errors import MissingError
from taqstore.plot.draw import draw
from taqstore.report import build
from taqstore.report.artist import _judged_of
from taqstore.report.findings import Plan
from taqstore.run import dealing
from taqstore.run.apart import apart
from taqstore.store.reader import Store, open_store
from taqstore.testing import RunShape, make_store

SHAPE = RunShape(
    images=2, steps=4, blocks=2, hidden=8, image_tokens=6, text_tokens=3, latent=(4, 3),
    channels=4, stats_stride=2, cache_stride=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(make_store(tmp_path_factory.mktemp("made") / "s.zarr", shape=SHAPE))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two processes are worth it; the functions that were asked of the second."""
    asked: list[str] = []

    def counted() -> Any:
        context = apart()

        class Counted:
            def __enter__(self) -> Callable[..., Any]:
                submit = context.__enter__()

                def told(function: Any, *given: Any) -> Any:
                    asked.append(function.__name__)
                    return submit(function, *given)

                return told

            def __exit__(self, *error: Any) -> Any:
                return context.__exit__(*error)

        return Counted()

    monkeypatch.setattr(module, "LEAST_BYTES", 0)
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(module, "apart", counted)
    monkeypatch.setattr("taqstore.report.artist.apart", counted)
    return asked


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kind", ["range", "heatmap"])
def test_figures_are_the_same(store: Store, tmp_path: Path, two: list[str], kind: str) -> None:
    alone = draw(kind, store, tmp_path / "alone")
    assert not two
    both = draw(kind, store, tmp_path / "both", processes=True)
    assert two
    assert [path.name for path in both[0]] == [path.name for path in alone[0]]
    assert both[1] == alone[1]
    assert _bytes_of(tmp_path / "both") == _bytes_of(tmp_path / "alone")


def test_sites_without_a_layer_are_passed_over_alike(
    store: Store, tmp_path: Path, two: list[str]
) -> None:
    kept = {"layers": ["mm0.img.mlp.fc2"]}
    alone = draw("range", store, tmp_path / "alone", **kept)  # type: ignore[arg-type]
    both = draw("range", store, tmp_path / "both", processes=True, **kept)  # type: ignore[arg-type]
    assert two
    assert [path.name for path in both[0]] == [path.name for path in alone[0]]
    with pytest.raises(MissingError) as first:
        draw("range", store, tmp_path / "none", layers=["mm9.*"])
    with pytest.raises(MissingError) as second:
        draw("range", store, tmp_path / "none", layers=["mm9.*"], processes=True)
    assert str(second.value) == str(first.value)


def test_the_report_is_the_same(store: Store, two: list[str]) -> None:
    alone = build(store)
    assert not two
    assert build(store, processes=True) == alone
    assert two[0] == "_judged_of"
    assert set(two[1:]) == {"_drawn"}


def test_a_store_that_grew_is_judged_as_it_was_opened(store: Store) -> None:
    """The other process opens it anew: what it finds then is not what this one tells."""
    plan = Plan("activations", (8, 4), 6.0, None)
    assert _judged_of(store.opener(), store.digest, plan) is not None
    assert _judged_of(store.opener(), "of another time", plan) is None


def test_a_report_without_pictures_needs_no_other_process(store: Store, two: list[str]) -> None:
    build(store, pictures=False, processes=True)
    assert not two


@pytest.mark.parametrize(
    "setting", [{"scheduler": "synchronous"}, {"num_workers": 1}, {"scheduler": "processes"}]
)
def test_one_thread_or_others_that_compute_are_left_alone(
    store: Store, two: list[str], tmp_path: Path, setting: dict[str, Any]
) -> None:
    with dask.config.set(**setting):
        assert not module.is_worth(store, {"a": xr.Dataset()})
    assert module.is_worth(store, {"a": xr.Dataset()})


def test_what_is_little_or_no_store_or_on_one_core_is_left_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = {"a": xr.Dataset({"x": ("i", np.zeros(module.LEAST_BYTES // 8))})}
    small = {"a": xr.Dataset({"x": ("i", np.zeros(module.LEAST_BYTES // 8 - 1))})}
    monkeypatch.setattr(dealing.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert module.is_worth(store, large)
    assert not module.is_worth(store, small)
    assert not module.is_worth(large, large)
    monkeypatch.setattr(dealing.os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert not module.is_worth(store, large)
