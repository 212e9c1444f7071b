"""No export, and no merge, of a number that a flipped bit has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.cli_runner import Runner
from support.thinned import in_turn
from taqstore.errors import TaqError
from taqstore.export.formats import FORMATS, export
from taqstore.store.reader import open_store
from taqstore.testing import RunShape
from taqstore.testing.damage import flip_bit
from taqstore.testing.store import make_store

SHAPE = RunShape(images=1, steps=4, blocks=1, hidden=4, image_tokens=3, text_tokens=2,
    stats_stride=1)  # fmt: skip
GROUP = "activations/mlp.fc2"
# Their zip tells the time of day; their members are compared by tests of their own.
DATED = ("timestep-stats", "activation-stats")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    make_store(path, shape=SHAPE, mantissa_bits=2)
    return path


@pytest.fixture(scope="module")
def possible(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each format makes of the whole store; those left out that it has nothing for."""
    folder, found = tmp_path_factory.mktemp("made"), {}
    for name in FORMATS:
        try:
            export(name, open_store(whole, chunks=None), folder / named(name))
        except (TaqError, ImportError):
            continue
        found[name] = folder / named(name)
    assert {"quant-config", "act-scales", "onnx-calibration", "lut-schedule"} <= set(found)
    return found


def named(name: str) -> str:
    return f"{name}.npz" if name == "act-scales" else name


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


def test_a_flipped_bit_reaches_no_document(
    taq: Runner, whole: Path, possible: dict[str, Path], tmp_path: Path
) -> None:
    variables, refused = open_store(whole)[GROUP].data_vars, 0
    for number, variable in enumerate(variables):
        store = Path(shutil.copytree(whole, tmp_path / f"{variable}.zarr"))
        flip_bit(min((store / GROUP / str(variable) / "c").rglob("*"), key=_deepest))
        # Every variable is damaged for some formats, every format is asked for with some damage.
        for name, made in in_turn(possible.items(), number, 5):
            out = tmp_path / f"{variable}-{named(name)}"
            done = taq("export", name, store, "-o", out)
            refused += done.code
            assert done.code == 1 or name in DATED or content(out) == content(made), variable
            assert done.code == 0 or f"{GROUP}/{variable}/c/" in done.err
    assert refused >= len(variables) // 3


def _deepest(path: Path) -> tuple[int, str]:
    return -len(path.parts), str(path)


@pytest.mark.parametrize("variable", ["tensor_min", "tensor_max", "min", "nonfinite"])
def test_a_flipped_bit_is_not_merged(
    taq: Runner, whole: Path, tmp_path: Path, variable: str
) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    flip_bit(min((store / GROUP / variable / "c").rglob("*"), key=_deepest))
    done = taq("merge", store, whole, tmp_path / "out.zarr", "--renumber", "--duplicates", "keep")
    assert done.code == 1
    assert f"{GROUP}/{variable}/c/" in done.err
