"""Trajectories and sensitivities as `info` names them: by variant, and how much is whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from support.sensitivity_store import LINEARS, TARGETS, write_sensitivities
from support.trajectory_groups import trajectory_groups
from taqstore import create_store, open_store
from taqstore.cli import cli
from taqstore.kinds.trajectories import trajectories_template
from taqstore.upkeep.info import describe_store


def write_trajectories(path: Path, whole: dict[str, int]) -> None:
    """Trajectories of so many whole images of each variant, the model as it is first."""
    for place, (group, data) in enumerate(trajectory_groups(images=3).items()):
        made = trajectories_template(
            group.rpartition("/")[2],
            images=data["image"].values,
            prompts=list(data["prompt"].values),
            seeds=data["seed"].values,
            cfg_weight=3.0,
            sigmas=data["sigma"].values,
            timesteps=data["timestep"].values,
            shape=tuple(data["x"].shape[2:]),
            attrs=data.attrs,
        )
        with create_store(path) as writer:
            kept = writer.group(made)
            for image in range([*whole.values()][place]):
                for name in ("x", "output"):
                    steps = data[name].values[image]
                    kept.put(name, (image, 0, 0, 0, 0), [np.array(s[None, None]) for s in steps])
                kept.commit([(image,)])


def test_trajectories_are_called_by_their_variant(tmp_path: Path) -> None:
    whole = {"float": 3, "gptq/a8-static": 3, "rtn/a16": 1, "rtn-w3/a4-static": 0}
    write_trajectories(tmp_path / "s.zarr", whole)
    found = describe_store(open_store(tmp_path / "s.zarr"))["trajectories"]
    assert {one["variant"]: one["images"] for one in found} == whole
    assert {one["of_images"] for one in found} == {3}
    groups = ["float", *(f"{number:016x}" for number in range(3))]
    assert {one["group"] for one in found} == {f"trajectories/{name}" for name in groups}
    result = CliRunner().invoke(cli, ["info", str(tmp_path / "s.zarr")])
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("rtn/a16 "))
    assert line.split() == ["rtn/a16", "trajectories/" + f"{1:016x}", "1", "of", "3"]


def test_sensitivities_are_those_that_readers_are_given(tmp_path: Path) -> None:
    known, steps = [*LINEARS], [*TARGETS["step"]]
    path = write_sensitivities(tmp_path / "s.zarr", formats=["rtn-w4"], targets=known[1:])
    write_sensitivities(path, formats=["rtn-w8"], targets=[])
    write_sensitivities(path, unit="step", formats=["a4-static"], images=(0, 1), targets=steps)
    result = CliRunner().invoke(cli, ["info", str(path), "--json"])
    found = {one["group"]: one for one in json.loads(result.stdout)["sensitivities"]}
    counts = ("targets", "of_targets", "images", "of_images")
    assert {name: tuple(one[count] for count in counts) for name, one in found.items()} == {
        "sensitivity/linear/rtn-w4": (len(known) - 1, len(known), 4, 4),
        "sensitivity/linear/rtn-w8": (0, len(known), 0, 4),
        "sensitivity/step/a4-static": (len(steps), len(steps), 2, 2),
    }
    shown = CliRunner().invoke(cli, ["info", str(path)]).stdout
    (line,) = (line for line in shown.splitlines() if line.startswith("linear ") and "-w4" in line)
    ends = f"{len(known) - 1} of {len(known)} 4 of 4"
    assert line.split() == ["linear", "rtn-w4", *ends.split()]
