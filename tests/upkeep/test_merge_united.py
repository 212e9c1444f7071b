"""Sensitivities of two machines are united: targets of both, images of both, each item once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.cli_runner import Runner
from support.sensitivity_store import TARGETS, write_sensitivities
from taqstore.errors import LayoutError, TaqError
from taqstore.kinds.sensitivity import scores, sensitivities
from taqstore.store.reader import open_store
from taqstore.upkeep.merge import merge
from taqstore.upkeep.verify import verify_store

SITES = [*TARGETS["site"]]
GROUP = "sensitivity/site/rtn-w4"


def write(path: Path, targets: list[str] | None = None, **options: object) -> Path:
    defaults = {"unit": "site", "formats": ["rtn-w4"], "images": (0, 1)}
    return write_sensitivities(path, targets=targets, **{**defaults, **options})  # type: ignore[arg-type]


def test_other_targets_of_the_same_images_are_the_union(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr", SITES[:2])
    second = write(tmp_path / "b.zarr", SITES[1:])
    outcome = merge(first, second, tmp_path / "out.zarr")
    whole = write(tmp_path / "whole.zarr")
    out, wanted = open_store(tmp_path / "out.zarr"), open_store(whole)
    assert not verify_store(tmp_path / "out.zarr").damage
    assert {*out.paths} == {*wanted.paths}
    assert outcome.groups[GROUP].written == 8
    assert outcome.groups[GROUP].skipped == 2
    for path in wanted.paths:
        assert out[path].drop_attrs().identical(wanted[path].drop_attrs()), path
        files = {p.relative_to(whole / path): p for p in (whole / path).rglob("c/**/*")}
        for place, file in files.items():
            if file.is_file() and "items" not in place.parts:
                assert (tmp_path / "out.zarr" / path / place).read_bytes() == file.read_bytes()
    again = merge(first, second, tmp_path / "out.zarr")
    assert again.written == 0
    write(tmp_path / "out.zarr")  # and it can be gone on with


def test_other_images_are_put_one_after_the_other(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr", images=(0, 1))
    second = write(tmp_path / "b.zarr", SITES[:2], images=(1, 2, 5))
    merge(first, second, tmp_path / "out.zarr")
    out = open_store(tmp_path / "out.zarr")
    [found] = sensitivities(out).values()
    assert [*out[GROUP]["image"].values] == [0, 1, 2, 5]
    assert [*out[GROUP]["seed"].values] == [100, 101, 102, 105]
    assert found.sizes["image"] * found.sizes["target"] == 8
    for image in (0, 1, 2, 5):
        source = open_store(first if image < 2 else second)[GROUP].sel(target=SITES[0])
        mine = out[GROUP].sel(target=SITES[0], image=image)
        np.testing.assert_array_equal(mine["delta"], source["delta"].sel(image=image))


def test_one_number_of_two_images_is_refused_and_numbered_anew(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr")
    second = write(tmp_path / "b.zarr", images=(1, 2), first_seed=500)
    with pytest.raises(TaqError, match=r"both .*a.zarr and .*b.zarr have an image 1.*--renumber"):
        merge(first, second, tmp_path / "out.zarr")
    merge(first, second, tmp_path / "out.zarr", renumber=True)
    out = open_store(tmp_path / "out.zarr")[GROUP]
    assert [*out["image"].values] == [0, 1, 3, 4]
    assert [*out["seed"].values] == [100, 101, 501, 502]


def test_renumbered_images_that_both_have_stay_one(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr", SITES[:1])
    second = write(tmp_path / "b.zarr", SITES[1:])
    merge(first, second, tmp_path / "out.zarr", renumber=True)
    assert [*open_store(tmp_path / "out.zarr")[GROUP]["image"].values] == [0, 1]


def test_an_item_that_differs_is_refused_or_the_firsts(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr", SITES[:2])
    other = write(tmp_path / "c.zarr", SITES[1:], scale=2.0)
    with pytest.raises(TaqError, match=rf"differ in \w+ of item 0, {SITES[1]}.*skip"):
        merge(first, other, tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()
    merge(first, other, tmp_path / "out.zarr", duplicates="skip")
    out, ours = (open_store(p)[GROUP] for p in (tmp_path / "out.zarr", first))
    np.testing.assert_array_equal(
        out["delta"].sel(target=SITES[1]), ours["delta"].sel(target=SITES[1])
    )


def test_a_format_of_one_store_is_taken_along(tmp_path: Path, taq: Runner) -> None:
    first = write(tmp_path / "a.zarr", formats=["rtn-w2"])
    second = write(tmp_path / "b.zarr", formats=["rtn-w4"])
    write_sensitivities(second, unit="block", formats=["rtn-w4"], images=(0, 1))
    assert taq("merge", first, second, tmp_path / "out.zarr").code == 0
    out = open_store(tmp_path / "out.zarr")
    assert [*sensitivities(out)] == [("block", "rtn-w4"), ("site", "rtn-w2"), ("site", "rtn-w4")]
    assert [*scores(out)] == [*sensitivities(out)]


def test_what_was_made_otherwise_is_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.zarr", SITES[:1])
    second = write(tmp_path / "b.zarr", SITES[1:], run={"statistics": {"items": 3}})
    with pytest.raises(LayoutError, match="otherwise: statistics differ"):
        merge(first, second, tmp_path / "out.zarr")
