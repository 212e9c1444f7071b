"""Reads that are many times faster than the old folders stay so.

Other tests measure no time. Here ratios are of the best of some calls, in processor time, and each
bound is a fifth or less of what an idle machine says (two steps: ratios are larger at full size).
"""

from __future__ import annotations

from time import process_time

import pytest

from benchmarks.inputs import Inputs
from benchmarks.measure import Contender, interleave
from benchmarks.questions import QUESTIONS

NPZ = "np.load"
ROLLUP = ("tensor_absmax, default", "tensor_absmax, chunks=None")
BOUNDS = {
    "layer": (("default", "chunks=None"), 4),
    "step": (("default", "chunks=None"), 4),
    "absmax": (("from channels, default", "from channels, chunks=None"), 4),
    "rollup": (ROLLUP, 100),
}
"""By question: ways of ours, and how many times less they take than folders of npz."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("ratios"), 0.04)


def those(inputs: Inputs, question: str, names: tuple[str, ...]) -> list[Contender]:
    asked = {c.name: c for c in QUESTIONS[question].contenders(inputs)}
    return [asked[name] for name in (*names, NPZ)]


def least_cpu(contenders: list[Contender], *, rounds: int) -> dict[str, float]:
    found = interleave(contenders, rounds=rounds, clock=process_time)
    return {name: min(each) for name, each in found.items()}


@pytest.mark.parametrize("name", BOUNDS)
def test_reads_are_many_times_faster_than_folders_of_npz(name: str, inputs: Inputs) -> None:
    ways, bound = BOUNDS[name]
    found = least_cpu(those(inputs, "absmax" if name == "rollup" else name, ways), rounds=5)
    ratios = {way: round(found[NPZ] / found[way], 1) for way in ways}
    assert {way: ratio for way, ratio in ratios.items() if ratio < bound} == {}


def test_what_is_as_slow_as_a_folder_is_found(inputs: Inputs) -> None:
    found = least_cpu(
        [
            Contender("copy", those(inputs, "step", ())[0].setup, ours=True),
            *those(inputs, "step", ()),
        ],
        rounds=3,
    )
    assert found[NPZ] / found["copy"] < BOUNDS["step"][1]
