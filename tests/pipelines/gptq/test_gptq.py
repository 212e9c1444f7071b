"""`taqstore gptq`: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.gptq.gptq import gptq
from taqstore.pipelines.gptq.settings import DEFAULT_SITES, GptqSettings
from taqstore.pipelines.gptq.site_errors import site_errors
from taqstore.pipelines.models.load import LoadedModel, load_pipeline
from taqstore.pipelines.models.table import ModelRow
from taqstore.pipelines.run.base_weights import base_weights

from support import moment_store
from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY, TINY_FLUX, load_tiny
from support.moment_store import BATCHES, EVERY, GROUP_OF, SIGMAS, moment, write_moments
from support.packed_store import Kind, write_set
from support.same_stores import assert_same_stores
from taqstore import open_store
from taqstore.errors import LayoutError, MissingError, MisuseError, StoreError, TaqError
from taqstore.export.formats import export
from taqstore.export.packed.layouts import MLX
from taqstore.kinds.quantized_linears import (
    linear_names_of,
    quantized_linear,
    run_of,
)
from taqstore.kinds.weight_sets import weight_sets
from taqstore.names import ADALN, SITES
from taqstore.quantization.gptq import gptq as round_weight
from taqstore.quantization.integer_grid import affine_grid, symmetric_grid
from taqstore.run.mode import Mode
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
SMALL = GptqSettings(bits=3, group_size=16)
TWO = ("attn.o_proj", "mlp.fc1")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def filled(tiny: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moments(tmp_path_factory.mktemp("moments") / "run.zarr", tiny)


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "run.zarr"))


def run(store: Path, model: LoadedModel, settings: GptqSettings = SMALL, **options: Any) -> Any:
    return gptq(store, settings=settings, local_ckpt=model.checkpoint, **options)


def in_blocks(matrix: np.ndarray, size: int) -> np.ndarray:
    """The matrix, 0 outside of blocks of neighbours."""
    block = np.arange(len(matrix)) // size
    return np.where(block[:, None] == block, matrix, 0)


@pytest.mark.parametrize(
    ("row", "grid", "block_size"),
    [
        (TINY, "affine", None),
        (TINY, "symmetric", 12),
        (TINY, "affine", 1),
        (TINY_FLUX, "affine", 9),
    ],
)
def test_every_linear_is_rounded_by_the_moment_of_its_input(
    row: ModelRow, tmp_path: Path, grid: Any, block_size: int | None
) -> None:
    """Whole models, every site: integers, steps and errors are those of moments made here."""
    model = load_tiny(tmp_path, row)
    path = write_moments(tmp_path / "run.zarr", model, block_size=block_size)
    settings = replace(
        SMALL, grid=grid, group_size=None, step_dtype="float32", site_bits={ADALN: 6, "time.fc1": 8}
    )
    outcome = run(path, model, settings, sites=EVERY)
    assert outcome.notes == []
    opened, count = open_store(path), 0
    for given in model.inputs():
        whole = moment(given)
        known = in_blocks(whole, block_size) if block_size else whole
        bits = {ADALN: 6, "time.fc1": 8}.get(given.site, 3)
        for reader in given.readers:
            found = quantized_linear(opened, reader.name, set="gptq")
            weight = reader.matrix()
            make = affine_grid if grid == "affine" else symmetric_grid
            its = make(weight, bits=bits, group_size=None)
            expected = round_weight(weight, known, its.nearest)
            np.testing.assert_array_equal(found.step, its.step)
            # Sums of float32 in the store may tip what lies between two integers.
            assert np.mean(found.weight != expected.codes) < 0.02
            assert found.bits == bits
            assert (found.offset is None) == (grid == "symmetric")
            left = weight - found.dequantized()
            nearest = weight - its.nearest(weight, np.arange(len(known)))[1]
            lost, plain = (np.einsum("oi,ij,oj->", d, known, d) for d in (left, nearest))
            assert lost <= plain * (1 + 1e-5)
            count += 1
    names = linear_names_of(opened, set="gptq")
    assert len(names) == count == sum(len(given.readers) for given in model.inputs())
    rows = {row["site"]: row for row in site_errors(path)}
    assert set(rows) == set(EVERY)
    kind = {None: "full", 1: "squares"}.get(block_size, f"blocks of {block_size}")
    assert rows["attn.qkv"]["statistics"] == kind
    assert rows["attn.qkv"]["ratio"] < (1.0 if block_size != 1 else 1 + 1e-9)
    assert sum(row["weights"] for row in rows.values()) == sum(x.weights for x in model.inputs())
    assert verify_store(path).damage == ()


def test_stored_errors_are_those_of_the_stored_weights(tiny: LoadedModel, store: Path) -> None:
    run(store, tiny)
    opened = open_store(store)
    for given in tiny.inputs():
        if given.site not in SITES:
            continue
        dataset = opened[f"weights/gptq/{given.site}"].sel(layer=given.layer)
        for reader in given.readers:
            one = dataset
            if reader.name.projection:
                one = dataset.sel(projection=reader.name.projection)
            left = reader.matrix() - quantized_linear(opened, reader.name, set="gptq").dequantized()
            lost = np.einsum("oi,ij,oj->", left, moment(given), left)
            assert float(one["linear_error"]) == pytest.approx(lost, rel=1e-4)
            assert float(one["linear_error"]) < float(one["nearest_error"])
        assert int(dataset["moment_block"]) == given.channels


def test_by_default_blocks_and_modulation_are_rounded(tiny: LoadedModel, store: Path) -> None:
    outcome = run(store, tiny)
    names = {name.site for name in linear_names_of(open_store(store), set="gptq")}
    assert names == set(DEFAULT_SITES) == {*SITES, ADALN}
    # Linears of one site that differ in outputs have groups of their own.
    assert {path for path in outcome.groups if ADALN in path} == {
        "weights/gptq/adaln.linear",
        "weights/gptq/adaln.linear.o64",
    }
    run_attributes = run_of(open_store(store), "gptq")
    assert run_attributes["method"] == "gptq"
    assert run_attributes["grid"] == "affine"
    assert run_attributes["weights"] == tiny.digest
    record = open_store(store).provenance[-1]
    assert record["command"] == "gptq"
    assert record["parameters"]["runs"]["mlp.fc2"]["statistics"]["group"] == (
        "second_moments/mlp.fc2"
    )


def test_groups_of_steps_count_by_sigma(tiny: LoadedModel, store: Path) -> None:
    run(store, tiny, replace(SMALL, sigma_power=2.0, damping=0.0))
    level = SIGMAS.astype(np.float64) ** 2 / np.mean(SIGMAS.astype(np.float64) ** 2)
    weights = [float(level[np.equal(GROUP_OF, group)].mean()) for group in range(2)]
    (given,) = [x for x in tiny.inputs() if (x.layer, x.site) == ("mm1.txt", "mlp.fc1")]
    found = quantized_linear(open_store(store), given.readers[0].name, set="gptq")
    left = given.readers[0].matrix() - found.dequantized()
    lost = np.einsum("oi,ij,oj->", left, moment(given, weights), left)
    one = open_store(store)["weights/gptq/mlp.fc1"].sel(layer="mm1.txt")
    assert float(one["linear_error"]) == pytest.approx(lost, rel=1e-4)


def test_a_site_without_second_moments_falls_back(tiny: LoadedModel, tmp_path: Path) -> None:
    """On squares where there are activations, on nothing only when it is asked for."""
    path = write_moments(tmp_path / "run.zarr", tiny, sites=["mlp.fc1"])
    outcome = run(path, tiny)
    assert [note.split(": ")[1:] for note in outcome.notes] == [
        ["no statistics", "left as they are"]
    ]
    with pytest.raises(MissingError, match=r"no activations of mlp\.fc2; .*--fallback nearest"):
        run(path, tiny, sites=["mlp.fc1", "mlp.fc2"], set="other")
    assert weight_sets(open_store(path)) == ("gptq",)
    settings = replace(SMALL, fallback="nearest")
    outcome = run(path, tiny, settings, sites=["mlp.fc2"], set="other")
    assert outcome.notes == ["mlp.fc2: no statistics: rounded to nearest"]
    (row,) = site_errors(path, set="other")
    assert (row["statistics"], np.isnan(row["ratio"])) == ("none", True)
    (reader,) = next(
        x.readers for x in tiny.inputs() if (x.layer, x.site) == ("mm0.img", "mlp.fc2")
    )
    found = quantized_linear(open_store(path), reader.name, set="other")
    grid = affine_grid(reader.matrix(), bits=3, group_size=16, step_dtype="float16")
    np.testing.assert_array_equal(found.weight, grid.nearest(reader.matrix(), np.arange(128))[0])


def test_stopped_it_goes_on_to_the_same_bits(
    tiny: LoadedModel, store: Path, filled: Path, tmp_path: Path
) -> None:
    whole = Path(shutil.copytree(filled, tmp_path / "whole.zarr"))
    run(whole, tiny, sites=TWO)

    class Stop:
        def start(self, total: int) -> None:
            self.left = 7

        def advance(self, label: str, amount: int = 1) -> None:
            self.left -= amount
            if not self.left:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, tiny, sites=TWO, mode=Mode(progress=Stop()))
    with pytest.raises(StoreError, match="--resume"):
        run(store, tiny, sites=TWO)
    with pytest.raises(LayoutError, match="bits"):
        run(store, tiny, replace(SMALL, bits=5), sites=TWO, mode=Mode(resume=True))
    outcome = run(store, tiny, sites=TWO, mode=Mode(resume=True))
    assert outcome.skipped > 0
    assert_same_stores(store, whole, attributes=False)
    assert run(store, tiny, sites=TWO, mode=Mode(resume=True)).written == 0
    assert run(store, tiny, replace(SMALL, bits=5), sites=TWO, mode=Mode(force=True)).skipped == 0


def test_it_does_not_go_on_with_more_statistics_than_it_began_with(
    tiny: LoadedModel, tmp_path: Path
) -> None:
    """Else a set is of two second moments, and nothing says which layer of which."""
    some = write_moments(tmp_path / "some.zarr", tiny, sites=["mlp.fc1"], batches=1)
    run(some, tiny, sites=["mlp.fc1"])
    assert run(some, tiny, sites=["mlp.fc1"], mode=Mode(resume=True)).written == 0
    write_moments(some, tiny, sites=["mlp.fc1"])
    with pytest.raises(LayoutError, match=r"settings: statistics items \(store 2, asked 4\);"):
        run(some, tiny, sites=["mlp.fc1"], mode=Mode(resume=True))
    assert run(some, tiny, sites=["mlp.fc1"], mode=Mode(force=True)).written


def test_packed_weights_are_not_rounded_again(tmp_path: Path) -> None:
    floats = load_tiny(tmp_path, TINY)
    kind = Kind(bits=4, group_size=32)
    made = write_set(tmp_path / "set.zarr", floats, {"mlp.fc1": kind})
    base = base_weights(open_store(made), MLX, checkpoint=floats.checkpoint)
    export("mlx", open_store(made), tmp_path / "packed", base=base)
    packed = load_pipeline(TINY, local_ckpt=tmp_path / "packed")
    store = write_moments(tmp_path / "run.zarr", packed, sites=["mlp.fc1"])
    with pytest.raises(TaqError, match="packed already"):
        gptq(store, settings=SMALL, local_ckpt=tmp_path / "packed")


def test_layers_that_another_process_holds_are_left_to_it(tiny: LoadedModel, store: Path) -> None:
    seen = []

    class Other:
        """Another process that comes in between: all is taken from the first linear on."""

        def start(self, total: int) -> None: ...

        def advance(self, label: str, amount: int = 1) -> None:
            if not seen:
                seen.append(run(store, tiny, sites=["mlp.fc1"], mode=Mode(resume=True)))

    ours = run(store, tiny, sites=["mlp.fc1"], mode=Mode(progress=Other()))
    (theirs,) = seen
    assert ours.written == 1
    assert theirs.notes == ["mm0.img mlp.fc1: left to another process that is working on it"]
    assert theirs.written == 4
    assert ours.notes == []  # what the other has finished is not left to it
    assert open_store(store)["weights/gptq/mlp.fc1"].sizes["layer"] == 5


def test_command(taq: Runner, tiny: LoadedModel, store: Path) -> None:
    given = ["gptq", store, "--local-ckpt", tiny.checkpoint, "--weight-group-size", "16"]
    shown = taq(*given, "--site-bits", "adaln.linear=6")
    assert (shown.code, shown.err) == (0, "")
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["site", "linears", "weights", "bits", "statistics", "ratio", "worst"]
    assert [line[0] for line in lines[1:]] == list(DEFAULT_SITES)
    assert lines[-1][3:5] == ["6", "full"]
    found = taq(*given, "--set", "small", "--weight-bits", "2", "--json")
    document = json.loads(found.out)
    assert [row["bits"] for row in document["sites"]] == ["2"] * 5
    assert set(document["groups"]) >= {"weights/small/mlp.fc2"}
    for words, told in [
        (["--site-bits", "adaln.linear"], "is no SITE=BITS"),
        (["--site-bits", "adaln=4"], "site 'adaln' is not known"),
        (["--site-bits", "mlp.fc1=9"], "2 to 8"),
        (["--site-bits", "final.linear=3"], "final.linear, whose linears are not rounded"),
        (["--sites", "mlp.fc1", "--site-bits", "mlp.fc2=3"], "mlp.fc2, whose linears are not"),
        (["--sites", "mlp.fc9"], "site 'mlp.fc9' is not known"),
        (["--weight-clip", "mse"], "--grid symmetric"),
        (["--set", "A"], "no name of a weight set"),
        (["--resume", "--force"], "exclude each other"),
    ]:
        refused = taq(*given, *words)
        assert (refused.code, told in refused.err) == (2, True), refused.err
    refused = taq(*given[:4], "--weight-group-size", "48", "--set", "odd")
    assert (refused.code, "attn.qkv: groups of 48 do not divide 32" in refused.err) == (1, True)


def test_positions_that_are_not_finite_are_told(
    taq: Runner, tiny: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of each item of every layer, in another channel."""
    whole = moment_store.raw

    def planted(*place: Any) -> np.ndarray:
        x = whole(*place)
        x[3, 4], x[5, 1] = np.nan, np.inf
        return x

    monkeypatch.setattr(moment_store, "raw", planted)
    store = write_moments(tmp_path / "run.zarr", tiny, sites=["mlp.fc1"])
    layers = open_store(store)["second_moments/mlp.fc1"].sizes["layer"]
    shown = taq("gptq", store, "--local-ckpt", tiny.checkpoint, "--weight-group-size", "16",
                "--sites", "mlp.fc1")  # fmt: skip
    left = f"{layers * BATCHES * 2 * 2} positions with non-finite values are left out"
    assert shown.code == 0, shown.err
    assert f"note: second_moments/mlp.fc1: {left}, first in mm0.img" in shown.err


def test_what_does_not_fit_is_refused(tiny: LoadedModel, store: Path, tmp_path: Path) -> None:
    other = load_tiny(tmp_path, TINY, seed=1)
    with pytest.raises(StoreError, match="other weights"):
        run(store, other)
    with pytest.raises(StoreError, match=r"are of tiny, not reference"):
        gptq(store, settings=SMALL, model="reference")
    untold = write_moments(tmp_path / "untold.zarr", tiny, sites=["mlp.fc1"], told=False)
    with pytest.raises(MissingError, match="--model"):
        run(untold, tiny)
    assert gptq(untold, settings=SMALL, model="tiny", local_ckpt=tiny.checkpoint).written
    with pytest.raises(MisuseError, match="symmetric"):
        GptqSettings(clip="mse")
    with pytest.raises(MisuseError, match="damping"):
        GptqSettings(damping=float("nan"))
    with pytest.raises(TaqError, match="damping"):
        GptqSettings(damping=-1.0)
