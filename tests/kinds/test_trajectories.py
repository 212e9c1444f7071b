"""Groups of trajectories: what they hold, as plain readers see it, and that they grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from taqstore import create_store, open_store
from taqstore.kinds.trajectories import (
    FLOAT,
    name_of,
    path_of,
    trajectories_template,
    trajectory_groups,
)
from taqstore.layout.template import Template
from taqstore.upkeep import describe_group, verify_store

STEPS, SHAPE = 3, (4, 2, 5)
DIGEST = "0123456789abcdef" * 4


def template(images: list[int], *, variant: str = FLOAT, digest: str = "") -> Template:
    return trajectories_template(
        name_of(digest) or FLOAT,
        images=images,
        prompts=[f"prompt {image}" for image in images],
        seeds=[40 + image for image in images],
        cfg_weight=3.0,
        sigmas=np.linspace(1, 0, STEPS + 1, dtype=np.float32),
        timesteps=np.linspace(1000, 0, STEPS + 1, dtype=np.float32),
        shape=SHAPE,
        attrs={"run": {"model": "toy"}, "variant": variant, "digest": digest},
    )


def values(image: int) -> np.ndarray:
    return np.random.default_rng(image).normal(size=(STEPS + 1, *SHAPE)).astype(np.float32)


def fill(path: Path, made: Template, places: list[int]) -> None:
    with create_store(path) as writer:
        group = writer.group(made)
        for place in places:
            x = values(int(made.coords["image"][1][place]))
            for name, found in (("x", x), ("output", -x)):
                group.put(name, (place, 0, 0, 0, 0), [step[None, None] for step in found])
            group.commit([(place,)])


def test_a_group_is_read_back_grows_and_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, template([7, 9]), [1])
    fill(path, template([9, 12, 7]), [1])
    group = open_store(path)["trajectories/float"]
    assert group["image"].values.tolist() == [9, 12]
    assert group["seed"].values.tolist() == [49, 52]
    assert [str(text) for text in group["prompt"].values] == ["prompt 9", "prompt 12"]
    for place, image in enumerate((9, 12)):
        assert np.array_equal(group["x"].values[place], values(image))
        assert np.array_equal(group["output"].values[place], -values(image))
    assert group["output"].attrs["long_name"] == "guided output"
    plain = xr.open_zarr(path, group="trajectories/float", consolidated=False)
    assert int(plain["written"].sum()) == 2
    assert not verify_store(path).damage
    assert describe_group(open_store(path), "trajectories/float")["kind"] == "trajectories"


def test_groups_are_named_by_what_ran(tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    fill(path, template([1]), [0])
    fill(path, template([1], variant="gptq/a8-static", digest=DIGEST), [0])
    named = path_of("0123456789abcdef")
    assert trajectory_groups(open_store(path)) == {
        named: "gptq/a8-static",
        "trajectories/float": FLOAT,
    }
