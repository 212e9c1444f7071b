"""Names of variants, and that one means the same whatever else lies in the store."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from taqstore.pipelines.adaround.activation_inputs import ActivationPlan
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.evaluate import defaults, evaluate, summary
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Variant, blocks_text, parse_blocks
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.rounding import Settings

from support.live_capture import needs_models
from support.live_models import TINY, load_tiny
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import MissingError, MisuseError, TaqError

pytestmark = needs_models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("weights"), TINY)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> Path:
    """Latents, streams and activations; nothing rounded."""
    folder = tmp_path_factory.mktemp("variants")
    (folder / "p.txt").write_text("a cat", encoding="utf-8")
    path, weights = folder / "s.zarr", model.checkpoint
    generate(path, Request(TINY.name, folder / "p.txt", 1, steps=2, local_ckpt=weights))
    cache(path, stride=1, local_ckpt=weights)
    collect(path, stride=1, local_ckpt=weights)
    return path


def rounded(bare: Path, folder: Path, model: LoadedModel, *blocks: str, bits: int = 3) -> Path:
    path = folder / f"{'-'.join(blocks)}.zarr"
    shutil.copytree(bare, path)
    settings = Settings(iterations=1, batch_size=1, bits=bits, group_size=4)
    adaround(path, settings=settings, plan=ActivationPlan(), chosen=blocks,
             local_ckpt=model.checkpoint)  # fmt: skip
    return path


WAYS = [Variant.parse(name) for name in ("rtn", "clipped/a8-static", "rtn-w3-g4@mm1")]


def test_a_variant_costs_the_same_whatever_was_rounded(
    bare: Path, tmp_path: Path, model: LoadedModel
) -> None:
    """Nothing rounded, one block of three, two of three with other bits: the same to the bit."""
    stores = [
        bare,
        rounded(bare, tmp_path, model, "mm1"),
        rounded(bare, tmp_path, model, "mm0", "mm2"),
    ]
    results = [evaluate(s, variants=WAYS, local_ckpt=model.checkpoint).result for s in stores]
    for other in results[1:]:
        for name in ("denoiser_error", "sqnr", "latent_error", "quantized", "weight_bits"):
            np.testing.assert_array_equal(other[name].values, results[0][name].values, err_msg=name)
    blocks = summary(results[0])["blocks"].tolist()
    assert blocks == ["none", "mm0-2", "mm0-2", "mm1"]
    assert results[0]["weight_bits"].values.tolist() == [0, 4, 4, 3]
    assert results[0].attrs["blocks"] == ["mm0", "mm1", "mm2"]


def test_rounded_blocks_stand_beside_the_same_blocks(
    bare: Path, tmp_path: Path, model: LoadedModel
) -> None:
    part = open_store(rounded(bare, tmp_path, model, "mm0", "mm1"))
    names = [v.name for v in defaults(Planner(model, part))]
    assert names[:6] == [
        "float", "rtn", "clipped", "rtn-w3-g4@mm0-1", "clipped-w3-g4@mm0-1", "adaround@mm0-1",
    ]  # fmt: skip
    assert {"rtn/a8-static", "rtn-w3-g4/a8-static@mm0-1", "adaround/a8-static@mm0-1"} <= set(names)
    assert "adaround/a8-learned@mm0-1" in names
    inside = [
        v.name for v in defaults(Planner(model, part, Options(["mm0"], bits=3, group_size=4)))
    ]
    assert inside[:4] == ["float", "rtn", "clipped", "adaround"]  # alike without being told
    assert not any("@" in name or "-w" in name for name in inside)
    outside = [v.name for v in defaults(Planner(model, part, Options(["mm2"])))]
    assert not any("adaround" in name for name in outside)


def test_weights_that_were_not_rounded_are_named(
    bare: Path, tmp_path: Path, model: LoadedModel
) -> None:
    part = rounded(bare, tmp_path, model, "mm0", "mm2")
    with pytest.raises(MissingError, match=r"of mm1\.img.*; .*adaround/a8-static@mm0,mm2 is of"):
        evaluate(part, variants=[Variant.parse("adaround/a8-static")], local_ckpt=model.checkpoint)
    planner = Planner(model, open_store(part), Options(["mm0"]))
    assert {n.block for n in planner.plans(Variant.parse("adaround"))} == {"mm0"}
    with pytest.raises(MisuseError, match=r"rtn@mm2: mm2 is not among --blocks"):
        planner.check(Variant.parse("rtn@mm2"))


@pytest.mark.parametrize(
    "name",
    ["rtn-w3", "clipped-w8-g128/a4-step-mse@mm0-5,uni2", "adaround/a8-learned@mm3",
     "rtn/config@uni0-1", "rtn-g4/a6-grouped-shift"],
)  # fmt: skip
def test_names_are_understood(name: str) -> None:
    assert Variant.parse(name).name == name


@pytest.mark.parametrize(
    "name", ["rtn-w9", "rtn-g0", "float-w4", "mlx-x", "rtn@", "rtn@mm", "rtn@mm5-2", "rtn@x1"]
)
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(TaqError, match=r"write (it|them) like"):
        Variant.parse(name)


def test_blocks_are_written_shortly() -> None:
    every = parse_blocks("mm0-2, mm4,uni0-1")
    assert every == ("mm0", "mm1", "mm2", "mm4", "uni0", "uni1")
    assert blocks_text(every) == "mm0-2,mm4,uni0-1"
    assert blocks_text([]) == ""
    assert parse_blocks("mm1,mm0-1") == ("mm1", "mm0")


@pytest.mark.parametrize("lost", ["evaluation.png", "contact_sheet.png", "decoder"])
def test_what_cannot_be_drawn_takes_no_number_with_it(
    bare: Path, tmp_path: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[load_safetensors] Failed to open file ae.safetensors")

    folder = tmp_path / "out"
    (folder / lost / "in the way").mkdir(parents=True)
    if lost == "decoder":
        monkeypatch.setattr(LoadedModel, "picture", fail)
    words = ["evaluate", str(bare), "--local-ckpt", str(model.checkpoint), "--variant", "rtn"]
    done = CliRunner().invoke(cli, [*words, "-o", str(folder)])
    assert done.exit_code == 0, (done.output, done.exception)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["variant", "float", "rtn"]
    (line,) = [line for line in done.stderr.splitlines() if "left out" in line]
    what = "the figure" if lost.startswith("evaluation") else "the contact sheet"
    assert line.startswith(f"note: {what} left out: ")
    tables = ("evaluation", "by_step", "by_block", "by_image")
    assert all((folder / f"{name}.csv").is_file() for name in tables)
    assert (folder / "evaluation.png").is_file() == (lost != "evaluation.png")
    assert (folder / "contact_sheet.png").is_file() == (lost == "evaluation.png")


def test_where_nothing_was_rounded_the_command_that_rounds_is_named(bare: Path) -> None:
    with pytest.raises(MisuseError, match=r"'gptq/a8-static' .*; taqstore gptq STORE makes one"):
        evaluate(bare, variants=[Variant.parse("gptq/a8-static")])
