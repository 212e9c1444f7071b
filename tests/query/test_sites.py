"""Which source and sites are asked, and that sites without an answer do not cost the others."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import taqstore
from taqstore.errors import MissingError, MisuseError
from taqstore.query.analyze import analyze
from taqstore.query.sites import (
    answers,
    choose_groups,
    choose_source,
    each_able,
    first_source,
    site_groups,
    slices,
)

PATHS = [
    "latents",
    "activations/attn.qkv",
    "activations/mlp.fc2.c12",
    "activations/mlp.fc2.c6",
    "channel_histograms/mlp.fc2",
    "pooled/timestep_stats/mlp.fc1",
    "pooled/timestep_stats/mlp.fc2",
]


def test_observations_are_preferred_and_others_can_be_asked_for() -> None:
    assert choose_source(PATHS) == "activations"
    assert choose_source(PATHS[4:]) == "pooled/timestep_stats"
    assert choose_source(PATHS, "pooled/timestep_stats") == "pooled/timestep_stats"
    assert choose_source(PATHS, "timestep_stats") == "pooled/timestep_stats"


@pytest.mark.parametrize("source", ["pooled/postgelu", "pooled", "latents", "nothing", "postgelu"])
def test_a_source_that_is_not_there_is_named_with_those_that_are(source: str) -> None:
    with pytest.raises(MissingError, match=r"no statistics .*found activations, pooled/timestep"):
        choose_source(PATHS, source)
    with pytest.raises(MissingError, match=r"no statistics.*taqstore collect STORE"):
        choose_source(["latents"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["attn.qkv", "mlp.fc2.c12", "mlp.fc2.c6"]),
        ({"sites": ["mlp.fc2.c6", "attn.qkv"]}, ["attn.qkv", "mlp.fc2.c6"]),
        ({"layer": "mm0.img"}, ["attn.qkv", "mlp.fc2.c12", "mlp.fc2.c6"]),
        ({"layer": "mm*.img"}, ["attn.qkv", "mlp.fc2.c12", "mlp.fc2.c6"]),
        ({"layer": "mm_00_img"}, ["mlp.fc2.c12", "mlp.fc2.c6"]),
        ({"layer": "mm0.img.attn.k_proj,mm1.txt.mlp.fc1"}, ["attn.qkv"]),
    ],
)
def test_sites_by_name_or_by_layer(options: dict[str, str], expected: list[str]) -> None:
    assert choose_groups(PATHS, **options) == [f"activations/{site}" for site in expected]


def test_sites_that_are_not_there_are_refused() -> None:
    with pytest.raises(
        MisuseError,
        match=r"site 'mlp.fc9' is not known; did you mean mlp\.fc2\.c6\? There is attn.qkv",
    ):
        choose_groups(PATHS, sites=["attn.qkv", "mlp.fc9"])
    with pytest.raises(MissingError, match=r"no site of layer mm0.img.mlp.fc1"):
        choose_groups(PATHS, layer="mm0.img.mlp.fc1")


def test_the_first_source_with_groups_that_are_able() -> None:
    order = ["pooled/postgelu", "channel_histograms", "activations"]
    assert first_source(PATHS, order) == ["channel_histograms/mlp.fc2"]
    assert first_source(PATHS, order, able=lambda p: "qkv" in p) == ["activations/attn.qkv"]
    assert first_source(PATHS, order[:1]) == []


def test_what_lacks_an_answer_is_passed_over_unless_all_do() -> None:
    def ask(number: int) -> Iterator[int]:
        if number < 3:
            raise MissingError(f"{number} is too small")
        yield from (number, -number)
        if number == 4:
            raise MissingError("4 ends early")

    skipped: list[str] = []
    assert list(each_able(ask, [1, 3, 2, 4], on_skip=skipped.append)) == [3, -3, 4, -4]
    assert skipped == ["1 is too small", "2 is too small", "4 ends early"]
    with pytest.raises(MissingError, match="2 is too small"):
        list(each_able(ask, [2, 1]))
    assert list(each_able(ask, [])) == []


def test_other_errors_are_not_passed_over() -> None:
    def ask(path: str) -> str:
        raise KeyError(path)

    with pytest.raises(KeyError, match="a/b"):
        answers(ask, ["a/b"])


def groups() -> dict[str, xr.Dataset]:
    layers = {"activations/attn.qkv": ["mm0.img", "mm0.txt"], "activations/mlp.fc1": ["mm0.img"]}
    return {
        path: xr.Dataset(
            {
                "min": (("step", "layer", "channel"), -np.ones((2, len(names), 3))),
                "max": (("step", "layer", "channel"), np.ones((2, len(names), 3))),
            },
            {"layer": names, "step": [0, 3]},
        )
        for path, names in layers.items()
    }


def test_slices_leave_out_sites_without_the_layer() -> None:
    every = groups()
    assert site_groups(every, "activations").keys() == {"attn.qkv", "mlp.fc1"}
    found = slices(every, every, {"layer": "mm0.txt"})
    assert list(found) == ["activations/attn.qkv"]
    assert found["activations/attn.qkv"]["layer"].values.tolist() == ["mm0.txt"]
    assert slices(every, every, {}).keys() == every.keys()
    with pytest.raises(MissingError, match=r"nothing matches --layer mm9\.img"):
        slices(every, every, {"layer": "mm9.img"})


def test_a_layer_of_no_site_is_an_error_not_a_traceback() -> None:
    with pytest.raises(MissingError, match=r"no site of layer mm0\.img\.mlp\.fc2"):
        analyze("scales", groups(), selection={"layer": "mm0.img.mlp.fc2"})


def test_of_sites_that_all_lack_a_layer_the_one_that_knows_what_was_meant_speaks() -> None:
    every = groups()
    first = {
        "activations/adaln.linear": every["activations/mlp.fc1"].assign_coords(layer=["modulation"])
    }
    with pytest.raises(MissingError, match=r"did you mean mm0\.img\? There is mm0\.img, mm0\.txt"):
        slices(first | every, [*first, *every], {"layer": "mm9.img"})


SPLITS = re.compile(r"""split\(\s*["']/["']|partition\(\s*["']/["']""")
# The function itself, names of variants, a pair of flags.
ALLOWED = {
    (
        "taqstore/analysis/shared/option.py",
        'words = (self.flag or self.name.replace("_", "-")).split("/")',
    ),
    ("pipelines/evaluate/variants.py", 'weights, slash, inputs = name.partition("/")'),
    ("taqstore/asked.py", '_, slash, last = wanted.rpartition("/")'),
    ("taqstore/cli/vocabulary.py", 'weights, slash, _ = asked.typed.partition("/")'),
    ("taqstore/names/vocabulary.py", 'source, _, site = path.rpartition("/")'),
    ("taqstore/names/vocabulary.py", 'return path.partition("/")[0]'),
    (
        "taqstore/together/joined_store.py",
        'return " + ".join(address.rsplit("/", 1)[-1] for address in str(self).split(" + "))',
    ),
    ("taqstore/plot/kinds/frontier.py", 'inputs = name.partition(" ")[0].partition("/")[2]'),
}


# They take keys of files apart, and addresses of stores: no source and no site is in these.
KEYS = ("arrays", "items", "layout", "metadata", "place", "store", "upkeep")

PLACES = (("files", "remote"), ("serve", "zarr_tree"))


def test_group_paths_are_split_in_one_place() -> None:
    root = Path(taqstore.__file__).parents[1]
    found = set()
    for folder in ("taqstore", "pipelines"):
        for file in (root / folder).rglob("*.py"):
            parts = file.relative_to(root).with_suffix("").parts
            if {*KEYS} & {*parts[1:-1]} or parts[-2:] in PLACES:
                continue
            with tokenize.open(file) as stream:
                lines = [line.strip() for line in stream if SPLITS.search(line)]
            found |= {(file.relative_to(root).as_posix(), line) for line in lines}
    assert found == ALLOWED
