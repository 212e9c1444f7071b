"""`adaround --set`: sets of one store never touch each other; stores without sets go on as such."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from taqstore.pipelines.adaround import adaround as module
from taqstore.pipelines.adaround import job
from taqstore.pipelines.adaround.adaround import adaround, block_errors
from taqstore.pipelines.models.rounding import Settings

from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store
from support.same_files import assert_same_folder, files_of
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import LayoutError, MisuseError, StoreError
from taqstore.export.formats import export
from taqstore.kinds.quantized_linears import quantized_blocks, quantized_linears
from taqstore.kinds.weight_sets import weight_sets
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
QUICK = Settings(bits=3, iterations=2, batch_size=4, learning_rate=0.05)
OTHER = replace(QUICK, bits=4, group_size=4)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("sets"), TINY)


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "run.zarr"))


@pytest.fixture
def run(filled: Path) -> Callable[..., Any]:
    def call(store: Path, settings: Settings = QUICK, **options: Any) -> Any:
        checkpoint = filled.with_name("w.safetensors")
        return adaround(store, settings=settings, local_ckpt=checkpoint, **options)

    return call


@pytest.fixture
def old_run(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """As versions without sets wrote: `weights/<site>`, a run that names no method."""

    def call(store: Path, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(module, "folder_of", lambda paths, name: "weights")
            return run(store, **options)

    return call


def test_a_set_is_written_without_touching_another(store: Path, run: Callable[..., Any]) -> None:
    run(store, chosen=["mm0", "mm1"], prefix=True)
    first = ("weights/adaround", "reconstruction", "blocks")
    before = files_of(store, *first)
    assert "blocks/img.quantized-1/zarr.json" in before
    run(store, OTHER, chosen=["mm0"], set="other", prefix=True)
    with pytest.raises(StoreError, match=r"weights/other/attn\.qkv already holds"):
        run(store, OTHER, chosen=["mm1"], set="other", prefix=True)
    with pytest.raises(LayoutError, match="made with other settings"):
        run(store, QUICK, set="other", prefix=True, mode=Mode(resume=True))
    run(store, OTHER, chosen=["mm1"], set="other", prefix=True, mode=Mode(resume=True))
    after = files_of(store, *first)
    assert {path: after[path] for path in before} == before
    assert {path.split("/")[1] for path in after.keys() - before.keys()} == {
        "img.quantized-1.other", "img.quantized-2.other",
        "txt.quantized-1.other", "txt.quantized-2.other",
    }  # fmt: skip
    opened = open_store(store)
    assert weight_sets(opened) == ("adaround", "other")
    assert "weights/other/reconstruction" in opened
    widths = {name: {x.bits for x in quantized_linears(opened, "mm0", set=name)}
              for name in ("adaround", "other")}  # fmt: skip
    assert widths == {"adaround": {3}, "other": {4}}
    assert {row["block"] for row in block_errors(store, set="other")} == {"mm0", "mm1"}
    # Replacing one leaves the other, whichever it is.
    second = files_of(store, "weights/other")
    run(store, chosen=["mm0"], mode=Mode(force=True))
    assert files_of(store, "weights/other") == second
    assert quantized_blocks(open_store(store), set="adaround") == ["mm0"]
    kept = files_of(store, "weights/adaround", "reconstruction")
    run(store, OTHER, chosen=["mm0"], set="other", mode=Mode(force=True))
    assert files_of(store, "weights/adaround", "reconstruction") == kept
    assert verify_store(store).damage == ()


def test_a_store_without_sets_goes_on_where_it_lies(
    store: Path, run: Callable[..., Any], old_run: Callable[..., Any]
) -> None:
    old_run(store, chosen=["mm0"])
    opened = open_store(store)
    assert "weights/mlp.fc2" in opened
    assert "weight_bits" not in opened["weights/mlp.fc2"]
    assert "method" not in attribute_of(opened["weights/mlp.fc2"], "run")
    with pytest.raises(StoreError, match=r"weights/attn\.qkv already holds"):
        run(store, chosen=["mm1"])
    run(store, chosen=["mm1"], mode=Mode(resume=True))
    opened = open_store(store)
    assert quantized_blocks(opened) == ["mm0", "mm1"]
    assert not any(path.startswith("weights/adaround") for path in opened)
    before = files_of(store, "weights/mlp.fc2", "weights/attn.qkv", "reconstruction")
    run(store, OTHER, chosen=["mm0"], set="other")
    run(store, OTHER, chosen=["mm0"], set="other", mode=Mode(force=True))
    assert files_of(store, "weights/mlp.fc2", "weights/attn.qkv", "reconstruction") == before
    run(store, OTHER, chosen=["mm2"], mode=Mode(force=True))  # anew, in the same place
    opened = open_store(store)
    assert quantized_blocks(opened, set="adaround") == ["mm2"]
    assert quantized_blocks(opened, set="other") == ["mm0"]
    assert not any(path.startswith("weights/adaround") for path in opened)
    assert verify_store(store).damage == ()


def test_documents_of_old_and_new_stores_are_equal(
    filled: Path, tmp_path: Path, run: Callable[..., Any], old_run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(job, "monotonic", lambda: 0.0)
    stores = [Path(shutil.copytree(filled, tmp_path / f"{n}.zarr")) for n in ("old", "new")]
    old_run(stores[0])
    run(stores[1])
    run(stores[1], OTHER, set="other")
    for store in stores:
        export("adaround", open_store(store), tmp_path / f"{store.stem}-w", weights="adaround")
    with pytest.raises(MisuseError, match="choose one with --weights: adaround, other"):
        export("adaround", open_store(stores[1]), tmp_path / "none")
    old, new = tmp_path / "old-w", tmp_path / "new-w"
    assert (old / "config.json").read_bytes() == (new / "config.json").read_bytes()
    assert assert_same_folder(old / "weights", new / "weights", "*.npz") == 3


def test_the_command_names_its_set(store: Path, filled: Path) -> None:
    words = ["adaround", str(store), "--local-ckpt", str(filled.with_name("w.safetensors"))]
    words += ["--blocks", "mm0", "--iterations", "1", "--batch-size", "2"]
    done = CliRunner().invoke(cli, [*words, "--set", "mine"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1].startswith("mm0")
    assert weight_sets(open_store(store)) == ("mine",)
    for name in ("Mine", "rtn", "mlx-4", "a/b", "reconstruction"):
        refused = CliRunner().invoke(cli, [*words, "--set", name])
        assert isinstance(refused.exception, MisuseError), name
