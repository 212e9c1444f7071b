"""Fine-tunes of the reference model: what they change, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import load_pipeline
from taqstore.pipelines.models.reference import checkpoint_path
from taqstore.pipelines.models.reference.__main__ import cli
from taqstore.pipelines.models.reference.data import real_digits
from taqstore.pipelines.models.reference.finetune import LOOKS, FineTune, finetune, looking

from taqstore.errors import MisuseError

BRIEF = FineTune(linears="mm[23].img.attn.*", rank=2, steps=2, batch=2)


def changed(path: Path) -> dict[str, np.ndarray]:
    """What a checkpoint adds to the weights of the published one, where that is anything."""
    mine, base = (
        {r.name.full: r.matrix() for one in load_pipeline("reference", local_ckpt=p).inputs()
         for r in one.readers}
        for p in (path, checkpoint_path())
    )  # fmt: skip
    assert mine.keys() == base.keys()
    return {n: mine[n] - base[n] for n in base if (mine[n] != base[n]).any()}


def test_a_low_rank_update_changes_the_linears_named_and_no_other(tmp_path: Path) -> None:
    names = finetune(tmp_path / "lora.safetensors", BRIEF)
    moved = changed(tmp_path / "lora.safetensors")
    assert sorted(moved) == sorted(names)
    assert {name.rpartition(".")[0] for name in names} == {"mm2.img.attn", "mm3.img.attn"}
    for name, update in moved.items():
        found = np.linalg.svd(update, compute_uv=False)
        # Weights are written in float16, which adds noise of every rank.
        assert found[BRIEF.rank :].max() < 0.05 * found[0], name
    finetune(tmp_path / "again.safetensors", BRIEF)
    first, again = (
        backend().mx.load(str(tmp_path / f"{n}.safetensors")) for n in ("lora", "again")
    )
    assert all((first[name] == again[name]).all().item() for name in first)


def test_a_full_one_changes_every_block_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "full.safetensors"
    words = ["finetune", str(file), "--look", "inverted", "--rank", "0", "--steps", "1"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert {f"mm{block}" for block in range(6)} <= {name.split(".")[0] for name in changed(file)}


def test_looks_are_what_they_are_called() -> None:
    digits, _ = real_digits()
    assert looking(digits, "bold").ink.mean() > 1.3 * digits.ink.mean()
    assert looking(digits, "bold").ink.max() <= 1
    np.testing.assert_allclose(looking(digits, "inverted").ink, 1 - digits.ink)
    assert set(looking(digits, "even").label.tolist()) == {0, 2, 4, 6, 8}
    assert all(look(digits).ink.dtype == np.float32 for look in LOOKS.values())


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for how in (FineTune(look="green"), FineTune(linears="mm9.*")):
        with pytest.raises(MisuseError, match=r"green|mm9"):
            finetune(tmp_path / "none.safetensors", how)
    assert not list(tmp_path.iterdir())
