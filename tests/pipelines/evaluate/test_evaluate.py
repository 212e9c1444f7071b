"""What quantization costs, measured again by hand on a model whose weights are overwritten."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from taqstore.pipelines.adaround.adaround import adaround
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.evaluate import Evaluation, defaults, evaluate, summary
from taqstore.pipelines.evaluate.linears_of_variant import Options, Planner
from taqstore.pipelines.evaluate.variants import Rounded, Variant
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.layers import blocks
from taqstore.pipelines.models.load import LoadedModel, to_numpy
from taqstore.pipelines.models.rounding import Settings
from taqstore.pipelines.models.sampling import make_schedule, trajectory

from support.live_capture import needs_models
from support.live_models import TINY, TINY_FLUX, load_tiny
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import MissingError, TaqError
from taqstore.export.formats import export
from taqstore.kinds.quantized_linears import quantized_linears
from taqstore.names import LayerName, parse_layer
from taqstore.plot.evaluation import evaluation_figure

pytestmark = needs_models
STEPS, IMAGES = 3, 2
NAMES = [
    "float/a4-step", "rtn-g8@mm0-1", "adaround@mm0-1", "adaround/a8-learned@mm0-1",
]  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_tiny(tmp_path_factory.mktemp("weights"), TINY)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, model: LoadedModel) -> Path:
    """Latents, activations and the quantized weights of two of three blocks."""
    from taqstore.pipelines.cache import cache

    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "p.txt").write_text("a cat\na dog, big", encoding="utf-8")
    path, weights = folder / "s.zarr", model.checkpoint
    generate(path, Request(TINY.name, folder / "p.txt", IMAGES, steps=STEPS, local_ckpt=weights))
    cache(path, stride=1, local_ckpt=weights)
    collect(path, stride=1, local_ckpt=weights)
    settings = Settings(iterations=2, batch_size=1, group_size=8)
    adaround(path, settings=settings, chosen=["mm0", "mm1"], local_ckpt=weights)
    return path


@pytest.fixture(scope="module")
def found(store: Path, model: LoadedModel) -> Evaluation:
    variants = [Variant.parse(name) for name in NAMES]
    return evaluate(store, variants=variants, pictures=True, local_ckpt=model.checkpoint)


@contextmanager
def overwritten(model: LoadedModel, weights: dict[LayerName, np.ndarray]) -> Iterator[None]:
    mx = backend().mx
    modules = {x.name: x.module for one in model.inputs() for x in one.readers}
    own = {name: modules[name].weight for name in weights}
    try:
        for name, weight in weights.items():
            modules[name].weight = mx.array(weight).astype(own[name].dtype)
        yield
    finally:
        for name, weight in own.items():
            modules[name].weight = weight


def measured(
    model: LoadedModel, store: Path, patch: pytest.MonkeyPatch
) -> tuple[np.ndarray, list[dict[str, np.ndarray]], np.ndarray]:
    """Guided outputs (image, step, ...), outputs of blocks at each, final latents (image, ...)."""
    from diffusionkit.mlx.mmdit import MultiModalTransformerBlock

    mx, latents = backend().mx, open_store(store, chunks=None)["latents"]
    schedule, names = (
        make_schedule(model, STEPS),
        {id(b.module): b.name for b in blocks(model.mmdit)},
    )
    seen: dict[str, np.ndarray] = {}
    run = MultiModalTransformerBlock.__call__

    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        result = run(self, *arguments, **options)
        mx.eval([x for x in result if x is not None])
        parts = [np.array(to_numpy(x)).astype(np.float64).ravel() for x in result if x is not None]
        seen[names[id(self)]] = np.concatenate(parts)
        return result

    outputs, inside, finals = [], [], []
    for image in range(IMAGES):
        one = latents.isel(image=image)
        text = model.encode_text(str(one.prompt.values), cfg_weight=float(one.cfg_weight))
        prompt = model.prepare(text, schedule.timesteps)
        for step in range(STEPS):
            x, sigma = mx.array(one.x.values[step][None]), schedule.sigmas[step]
            with patch.context() as context:
                context.setattr(MultiModalTransformerBlock, "__call__", call)
                denoised = model.denoise(x, schedule.timesteps[step], sigma, prompt)
                outputs.append(np.array((x - denoised) / sigma).astype(np.float64))
            inside.append(dict(seen))
        *_, last = trajectory(
            model, prompt, schedule, seed=int(one.seed), latent_size=TINY.latent_size
        )
        finals.append(np.array(to_numpy(last)).astype(np.float64))
    return np.array(outputs).reshape(IMAGES, STEPS, -1), inside, np.array(finals)


@pytest.mark.parametrize("name", NAMES[1:3])
def test_costs_of_weights_are_those_of_overwritten_weights(
    store: Path, model: LoadedModel, found: Evaluation, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    groups = open_store(store)
    planner = Planner(model, groups)
    weights = {n: p.weight for n, p in planner.plans(Variant.parse(name)).items()}
    if name.startswith("adaround"):
        for block in ("mm0", "mm1"):
            for linear in quantized_linears(groups, block):
                assert np.array_equal(weights[linear.name], linear.dequantized())
    plain, plain_blocks, plain_finals = measured(model, store, monkeypatch)
    with overwritten(model, weights):  # type: ignore[arg-type]
        other, other_blocks, other_finals = measured(model, store, monkeypatch)
    got = found.result.sel(variant=name)
    for step in range(STEPS):
        error = np.sqrt(((other - plain)[:, step] ** 2).sum() / (plain[:, step] ** 2).sum())
        assert float(got["denoiser_error"][step]) == pytest.approx(error, rel=1e-12)
    rms = np.sqrt(((other - plain) ** 2).sum() / (plain**2).sum())
    assert float(got["relative_rms"]) == pytest.approx(rms, rel=1e-12)
    assert got["observed"].values.tolist() == [True, True]  # activations of both are there
    for image in range(IMAGES):
        a, b = plain_finals[image], other_finals[image]
        expected = np.linalg.norm(b - a) / np.linalg.norm(a)
        assert float(got["latent_error"][image]) == pytest.approx(expected, rel=1e-12)
    assert got["block"].values[got["quantized"].values].tolist() == ["mm0", "mm1"]
    for block in ("mm0", "mm1", "mm2"):  # what lies behind quantized blocks is measured too
        power = sum((one[block] ** 2).sum() for one in plain_blocks)
        error = sum(
            ((b[block] - a[block]) ** 2).sum()
            for a, b in zip(plain_blocks, other_blocks, strict=True)
        )
        assert float(got["sqnr"].sel(block=block)) == pytest.approx(10 * np.log10(power / error))


def test_the_model_as_it_is_comes_first_and_costs_nothing(found: Evaluation, store: Path) -> None:
    assert found.result["variant"].values.tolist() == ["float", *NAMES]
    plain = found.result.isel(variant=0)
    assert not plain["denoiser_error"].any()
    assert not plain["latent_error"].any()
    assert np.isinf(plain["sqnr"]).all()
    assert (found.result.isel(variant=slice(1, None))["denoiser_error"] > 0).all()
    assert np.isnan(found.result["accuracy"]).all()  # no digits are asked of this model
    latents = open_store(store)["latents"]
    assert found.prompts == latents["prompt"].values.tolist()
    final = latents["x"].isel(step=-1).values
    expected = np.clip(final[..., 0] * 60 + 128, 0, 255).astype(np.uint8)  # `live_models.decode`
    assert found.pictures is not None
    np.testing.assert_array_equal(found.pictures[0], expected)


def test_a_model_of_unified_blocks_is_evaluated(tmp_path: Path) -> None:
    """FLUX: bfloat16, no guidance, image and text in one stream."""
    model = load_tiny(tmp_path, TINY_FLUX)
    (tmp_path / "p.txt").write_text("a cat", encoding="utf-8")
    request = Request(TINY_FLUX.name, tmp_path / "p.txt", 1, steps=2, local_ckpt=model.checkpoint)
    generate(tmp_path / "s.zarr", request)
    variants = [Variant.parse("rtn")]
    found = evaluate(tmp_path / "s.zarr", variants=variants, local_ckpt=model.checkpoint)
    assert found.result["block"].values.tolist() == ["mm0", "mm1", "uni0", "uni1"]
    one = found.result.sel(variant="rtn")
    assert ((one["sqnr"] > 5) & (one["sqnr"] < 60)).all()
    assert (one["denoiser_error"] > 0).all()
    assert found.pictures is None


def test_input_quantizers_are_those_of_the_observations(store: Path, model: LoadedModel) -> None:
    """Static, by step and shifted, from the extrema by plain loops."""
    groups = open_store(store)
    planner = Planner(model, groups, Options(["mm0"]))
    name = parse_layer("mm0.txt.mlp.fc2")
    seen = groups["activations/mlp.fc2"].sel(layer="mm0.txt").compute()
    low, high = (seen[n].values.astype(np.float64) for n in ("min", "max"))  # batch, step, channel
    absmax = np.maximum(abs(low), abs(high)).max(axis=(0, 2))
    static = planner.plans(Variant.parse("float/a6-static"))[name]
    assert static.weight is None
    assert static.input is not None
    assert static.input.bits.tolist() == [6]
    np.testing.assert_allclose(static.input.step, [absmax.max() / 31], rtol=1e-7)
    each = planner.plans(Variant.parse("float/a6-step"))[name].input
    assert each is not None
    np.testing.assert_allclose(each.step, absmax / 31, rtol=1e-7)
    sigma = seen["sigma"].values
    np.testing.assert_array_equal(each.sigma_lower, [*sigma[:-1], 0.0])
    shifted = planner.plans(Variant.parse("float/a6-step-shift"))
    quantizer = shifted[name].input
    assert quantizer is not None
    assert quantizer.shift is not None
    for step in range(STEPS):
        s = (low[0, step] + high[0, step]) / 2
        for image in range(1, IMAGES):
            s = 0.95 * s + 0.05 * (low[image, step] + high[image, step]) / 2
        np.testing.assert_allclose(quantizer.shift[step], s, rtol=1e-5, atol=1e-5)
        left = np.maximum(abs(low[:, step].min(0) - s), abs(high[:, step].max(0) - s)).max()
        assert quantizer.step[step] == pytest.approx(left / 31, rel=1e-5)
    other = shifted[parse_layer("mm0.txt.mlp.fc1")].input
    assert other is not None
    assert other.shift is None


def test_grouped_steps_stand_between_static_ones_and_each_its_own(
    store: Path, model: LoadedModel
) -> None:
    planner = Planner(model, open_store(store), Options(["mm0"], groups=2))
    name = parse_layer("mm0.img.attn.o_proj")
    quantizers = [planner.plans(Variant.parse(f"float/a4-{s}"))[name].input for s in
                  ("static", "grouped", "step")]  # fmt: skip
    steps = [q.step for q in quantizers if q is not None]
    assert [len(step) for step in steps] == [1, 2, STEPS]
    assert steps[1].max() == steps[0].max() == steps[2].max()


def names_for(store: Path, model: LoadedModel, **options: Any) -> list[str]:
    """The variants that are measured where none is named, without measuring."""
    return [v.name for v in defaults(Planner(model, open_store(store), Options(**options)))]


def test_defaults_are_what_the_store_allows(
    store: Path, tmp_path: Path, model: LoadedModel
) -> None:
    (tmp_path / "p.txt").write_text("a cat", encoding="utf-8")
    bare = tmp_path / "bare.zarr"
    generate(bare, Request(TINY.name, tmp_path / "p.txt", 1, steps=2, local_ckpt=model.checkpoint))
    assert names_for(bare, model) == ["float", "rtn", "clipped"]

    def refused(name: str, **options: Any) -> str:
        with pytest.raises(TaqError) as caught:
            evaluate(bare, variants=[Variant.parse(name)], local_ckpt=model.checkpoint, **options)
        return str(caught.value)

    assert "float/a8-static needs activations/" in refused("float/a8-static")
    assert "no quantized weights in the store" in refused("adaround")
    assert "no block mm7 in tiny" in refused("rtn", options=Options(["mm7"]))


def test_what_the_stored_weights_do_not_have(store: Path, model: LoadedModel) -> None:
    planner = Planner(model, open_store(store), Options(["mm1", "mm2"]))
    with pytest.raises(MissingError, match=r"no quantized weights of mm2\.img\.attn\.q_proj"):
        planner.plans(Variant.parse("adaround"))
    planner = Planner(model, open_store(store), Options(["mm1"]))
    with pytest.raises(TaqError, match=r"the learned steps are of 8 bits; use adaround/a8-learned"):
        planner.plans(Variant.parse("adaround/a4-learned"))


def test_weights_and_config_from_files(store: Path, model: LoadedModel, tmp_path: Path) -> None:
    """What was exported runs as what is in the store."""
    groups = open_store(store)
    weights, config = tmp_path / "w.safetensors", tmp_path / "c.json"
    export("safetensors", groups, weights)
    export("quant-config", groups, config, outliers=True)
    stored = Planner(model, groups)
    planner = Planner(model, groups, Options(weights=weights, config=config))
    learned = Variant.parse("adaround/a8-learned@mm0-1")
    assert stored.rounded == planner.rounded == Rounded(("mm0", "mm1"), 4, 8, 8)
    for name, plan in planner.plans(learned).items():
        own = stored.plans(learned)[name]
        np.testing.assert_array_equal(plan.weight, own.weight)
        assert plan.input is not None
        assert own.input is not None
        np.testing.assert_array_equal(plan.input.step, own.input.step)
    by_config = planner.plans(Variant.parse("float/config"))
    document = json.loads(config.read_text())
    name = parse_layer("mm1.img.mlp.fc1")
    first = document["per_timestep"]["0"][name.full]
    quantizer = by_config[name].input
    assert quantizer is not None
    assert len(quantizer.step) == STEPS
    if name.full not in document["outlier_config"]:
        assert quantizer.step[0] == np.float32(first["scale"] / 127)
    with pytest.raises(TaqError, match=r"rtn/config needs a config file; --config"):
        stored.plans(Variant.parse("rtn/config"))
    with pytest.raises(
        MissingError, match=r"w\.safetensors: adaround: no quantized weights of mm2"
    ):
        Planner(model, groups, Options(["mm2"], weights=weights)).plans(Variant.parse("adaround"))


def test_the_command(store: Path, model: LoadedModel, tmp_path: Path) -> None:
    def run(*words: str) -> Any:
        base = ["evaluate", str(store), "--local-ckpt", str(model.checkpoint), "--images", "1"]
        return CliRunner().invoke(cli, [*base, "--variant", "rtn/a8-static", *words])

    folder = tmp_path / "out"
    plain = run("-o", str(folder))
    assert plain.exit_code == 0, (plain.output, plain.exception)
    lines = plain.stdout.splitlines()
    assert lines[0].split() == [
        "variant", "blocks", "denoiser_error", "worst_step", "latent_error", "sqnr", "worst_block",
        "relative_rms", "weights", "packed_bytes", "of_float16",
        "cosine", "worst_cosine", "bifurcated", "psnr", "cosine_lower", "cosine_upper",
        "latent_error_lower", "latent_error_upper", "psnr_lower", "psnr_upper",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:]] == ["float", "rtn/a8-static"]
    assert {p.name for p in folder.iterdir()} == {
        "contact_sheet.png", "evaluation.png", "evaluation.csv",
        "by_step.csv", "by_block.csv", "by_image.csv", "by_latent_step.csv", "trajectories.png",
    }  # fmt: skip
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.mode == "L"
    rows = list(csv.DictReader(io.StringIO(run("--csv").stdout)))
    written = (folder / "evaluation.csv").read_text(encoding="utf-8")
    assert rows == list(csv.DictReader(io.StringIO(written)))
    tables = json.loads(run("--json").stdout)["tables"]
    assert [table["dims"] for table in tables][:2] == [["variant"], ["variant", "step"]]
    assert run("--csv", "--json").exit_code == 2


def test_summary_and_figure(found: Evaluation) -> None:
    table = summary(found.result)
    row = table.set_index("variant").loc["rtn-g8@mm0-1"]
    one = found.result.sel(variant="rtn-g8@mm0-1")
    assert row["worst_step"] == one["denoiser_error"].values.max()
    own = one["sqnr"].sel(block=["mm0", "mm1"]).values
    assert (row["worst_block"], row["sqnr"]) == (own.min(), pytest.approx(own.mean(), rel=1e-15))
    assert table["blocks"].tolist() == ["none", "mm0-2", "mm0-1", "mm0-1", "mm0-1"]
    assert "accuracy" not in table
    figure = evaluation_figure(found.result)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == NAMES
