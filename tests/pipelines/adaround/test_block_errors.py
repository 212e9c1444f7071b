"""The table of errors says what AdaRound is set against, and compares like with like."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from taqstore.pipelines.adaround.adaround import adaround, block_errors
from taqstore.pipelines.cache import cache
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.rounding import Settings

from support.cli_runner import Runner
from support.live_capture import needs_models
from support.live_models import TINY, write_checkpoint
from taqstore import open_store

pytestmark = needs_models


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("errors")
    (folder / "p.txt").write_text("a cat", encoding="utf-8")
    weights = write_checkpoint(folder / "w.safetensors")
    generate(
        folder / "s.zarr", Request(TINY.name, folder / "p.txt", 1, steps=2, local_ckpt=weights)
    )
    cache(folder / "s.zarr", stride=1, local_ckpt=weights)
    return folder / "s.zarr"


@pytest.mark.parametrize(
    ("clip", "against", "prefix"), [("absmax", "rtn", False), ("mse", "clipped", True)]
)
def test_the_ratio_is_against_the_same_weight_steps(
    cached: Path, tmp_path: Path, taq: Runner, clip: str, against: str, prefix: bool
) -> None:
    """An iteration of next to no rate leaves weights rounded to nearest, on the grid of `clip`."""
    store = tmp_path / "s.zarr"
    shutil.copytree(cached, store)
    settings = Settings(bits=3, iterations=1, batch_size=1, activation_bits=0, clip=clip,
                        learning_rate=1e-30)  # fmt: skip
    adaround(store, settings=settings, prefix=prefix, local_ckpt=cached.with_name("w.safetensors"))
    rows = block_errors(store)
    assert {row["against"] for row in rows} == {against}
    stored = open_store(store)["reconstruction"].compute()["method_error"]
    for row in rows:
        here = stored.sel(block=row["block"], stream=row["stream"], inputs=row["inputs"])
        ratio = float(here.sel(rounding_method="adaround") / here.sel(rounding_method=against))
        assert row[f"adaround/{against}"] == ratio
        # Exact halves, which float16 weights have, are rounded the other way.
        assert ratio == pytest.approx(1.0, abs=0.1)
    assert {row["inputs"] for row in rows} == {"float"}  # no others without bits
    shown = taq("adaround", store, "--local-ckpt", cached.with_name("w.safetensors"), "--bits", 3,
                "--iterations", 1, "--batch-size", 1, "--activation-bits", 0, "--clip", clip,
                "--learning-rate", 1e-30, *["--prefix"] * prefix, "--resume")  # fmt: skip
    assert shown.code == 0, shown.err
    lost = [line for line in shown.err.splitlines() if "AdaRound lost to" in line]
    assert all(f"AdaRound lost to {against} by" in line for line in lost)
    assert len(lost) == sum(row[f"adaround/{against}"] >= 1 for row in rows)
