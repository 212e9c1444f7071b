"""The short form of the growth curves: what is done with a store grows no faster than its data.

Other tests measure no time. Here bounds are half-way between linear and quadratic and of the best
of two, in processor time; counts of files and of bytes have narrow bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from benchmarks.growth.actions import ACTIONS
from benchmarks.growth.inputs import Size, data_of
from benchmarks.growth.short import above, counts, grown
from taqstore.testing import make_sd3_store

SMALL = Size("all", images=2, steps=4, blocks=2)
GROWN = {
    "images": Size("images", images=8, steps=4, blocks=2),
    "steps": Size("steps", images=2, steps=16, blocks=2),
    "blocks": Size("blocks", images=2, steps=4, blocks=8),
}
NAMES = ("open", "layer", "info", "scales", "percentile", "error", "outliers")
TRACED = (str(SMALL), str(GROWN["images"]))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[Size, Path]:
    folder = tmp_path_factory.mktemp("growth")
    return {
        size: make_sd3_store(
            folder / f"observed-{size}.zarr",
            steps=size.steps,
            batches=size.images,
            blocks=size.blocks,
            hidden=32,
        )
        for size in (SMALL, *GROWN.values())
    }


@pytest.mark.parametrize("name", NAMES)
def test_nothing_grows_faster_than_its_data(
    name: str, stores: dict[Size, Path], tmp_path: Path
) -> None:
    runs = {str(size): ACTIONS[name].ready(stores[size], tmp_path, size) for size in stores}
    runs[str(SMALL)]()  # what is imported and kept is no part of it
    found = counts(runs, traced=TRACED)
    for size in GROWN.values():
        data = data_of(stores[SMALL], SMALL), data_of(stores[size], size)
        exponents = grown(data, found[str(SMALL)], found[str(size)])
        assert above(exponents) == {}, f"{size.axis} of {name}"


def quadratic_time(numbers: int) -> object:
    return [i * j for i in range(numbers) for j in range(0, numbers, 4)].pop()


def quadratic_memory(numbers: int) -> object:
    return bytearray(numbers * numbers)


def quadratic_opens(numbers: int) -> object:
    return [Path("/dev/null").read_bytes() for _ in range(numbers * numbers // 1000)]


def linear(numbers: int) -> object:
    return [sum(range(2000)) for _ in range(numbers)]


@pytest.mark.parametrize(
    ("work", "seen"),
    [
        (quadratic_time, {"cpu", "allocated"}),
        (quadratic_memory, {"allocated"}),
        (quadratic_opens, {"opens"}),
        (linear, set()),
    ],
)
def test_what_is_planted_is_found(work: Callable[[int], object], seen: set[str]) -> None:
    found = counts({str(size): partial(work, size) for size in (500, 2000)}, traced=("500", "2000"))
    exponents = grown((500, 2000), found["500"], found["2000"])
    assert seen <= above(exponents).keys()
    assert above(exponents).keys() - seen <= ({"cpu"} if seen else set())
