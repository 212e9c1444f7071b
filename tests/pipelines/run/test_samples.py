"""A Phase 1 file goes the source's way: statistics, streams, figures and files of its samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_blocks
from taqstore.pipelines.models.load import Conditioning, LoadedModel, Prompt, to_numpy

from support.live_capture import full_names, needs_models, patched_linears
from support.live_models import POOLED, TINY32, TOKENS, WIDTH, load_tiny, write_checkpoint
from taqstore import open_store
from taqstore.cli import cli
from taqstore.errors import MissingError
from taqstore.kinds.second_moments import moments_of
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
PROMPTS = ["a cat", "ünï", "", "never used"]
# Timesteps of the rows: counts differ, so that batches do.
LAST = 8.929688
TIMES = (1000.0, 731.5, 1000.0, LAST, 731.5, LAST, 1000.0, 731.5, LAST, 1000.0, LAST)
OF_PROMPT = (2, 0, 0, 1, 1, 0, 1, 2, 2, 0, 0)
CFG = 1.5


def phase1() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(77)
    return {
        "xs": rng.normal(size=(len(TIMES), 8, 4, 16)).astype(np.float32),
        "ts": np.array(TIMES, np.float32),
        "prompt_indices": np.array(OF_PROMPT, np.int32),
        "cs": rng.normal(size=(len(PROMPTS), 2, TOKENS, WIDTH)).astype(np.float16),
        "cs_pooled": rng.normal(size=(len(PROMPTS), 2, POOLED)).astype(np.float16),
        "prompts": np.array(PROMPTS, dtype=object),
        "cfg_scale": np.array(CFG, np.float32),
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phase1")
    np.savez_compressed(folder / "DiT_cali_data.npz", allow_pickle=True, **phase1())
    succeed("ingest", folder / "DiT_cali_data.npz", folder / "s.zarr")
    return folder / "s.zarr"


@pytest.fixture(scope="module")
def whole(ingested: Path, weights: Path) -> Path:
    model = ["--model", "tiny32", "--local-ckpt", weights]
    succeed("collect", ingested, *model, "--histogram-bits", "10")
    succeed("cache", ingested, *model)
    return ingested


@pytest.fixture(scope="module")
def model(weights: Path) -> LoadedModel:
    return load_tiny(weights.parent, TINY32)


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def succeed(*words: object) -> Result:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def prompted(model: LoadedModel, sample: int) -> tuple[Prompt, np.float32]:
    """A sample's prompt, made without the code under test."""
    mx, arrays = backend().mx, phase1()
    index, time = arrays["prompt_indices"][sample], arrays["ts"][sample]
    tokens, pooled = (mx.array(arrays[k][index].astype(np.float32)) for k in ("cs", "cs_pooled"))
    return model.prepare(Conditioning(tokens, pooled, CFG), mx.array(np.array([time]))), time


def forward(model: LoadedModel, sample: int, prompt: Prompt, time: np.float32) -> None:
    mx = backend().mx
    x = mx.array(phase1()["xs"][sample][None])
    sigma = mx.array(np.array(time / np.float32(1000)))
    mx.eval(model.denoise(x, mx.array(np.array(time)), sigma, prompt))


def test_statistics_are_those_of_every_sample_at_its_timestep(
    whole: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, raw = full_names(model.mmdit), dict[tuple[float, str], list[np.ndarray]]()
    for sample, time in enumerate(TIMES):
        prompt, given = prompted(model, sample)
        with patched_linears(monkeypatch) as seen:
            forward(model, sample, prompt, given)
        for module, x in seen.items():
            if module in names:
                rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
                raw.setdefault((round(time), names[module]), []).append(rows)
    store = open_store(whole)
    for site, linear in (("mlp.fc2", "mlp.fc2"), ("attn.qkv", "attn.k_proj")):
        group = store[f"activations/{site}"].load()
        assert group["timestep"].values.tolist() == [1000.0, 731.5, np.float32(LAST)]
        assert np.array_equal(group["sigma"].values, group["timestep"].values / np.float32(1000))
        for step, time in enumerate(group["timestep"].values):
            for layer in group["layer"].values:
                truth = np.concatenate(raw[round(float(time)), f"{layer}.{linear}"])
                cell = group.sel(layer=layer).isel(step=step)
                assert int(cell["count"].sum()) == len(truth)
                assert int(cell["histogram"].sum()) == truth.size
                np.testing.assert_allclose(cell["min"].min("batch"), truth.min(0), rtol=1e-5)
                np.testing.assert_allclose(cell["max"].max("batch"), truth.max(0), rtol=1e-5)
                weight = cell["count"] / cell["count"].sum()
                mean = (cell["mean"] * weight).sum("batch")
                np.testing.assert_allclose(mean, truth.mean(0), rtol=1e-4, atol=1e-5)


def test_second_moments_of_some_samples_are_those_of_their_tensors(
    model: LoadedModel, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of steps hold the samples drawn at their timesteps, as float64 sums them."""
    path = tmp_path / "s.zarr"
    np.savez(tmp_path / "DiT_cali_data.npz", allow_pickle=True, **phase1())
    succeed("ingest", tmp_path / "DiT_cali_data.npz", path)
    asked = ["--num-samples", "7", "--second-moment", "12", "--second-moment-groups", "2"]
    succeed("collect", path, "--model", "tiny32", "--local-ckpt", weights, *asked,
            "--sites", "mlp.fc2")  # fmt: skip
    store, names = open_store(path), full_names(model.mmdit)
    group = store["second_moments/mlp.fc2"].load()
    drawn = sorted(int(i) for i in group["image"].values.ravel() if i >= 0)
    observed = store["activations/mlp.fc2"]["image"].values.ravel()
    assert drawn == sorted(int(i) for i in observed if i >= 0)
    assert len(set(drawn)) == 7
    times = group["timestep"].values
    group_of = dict(zip(times.tolist(), group["step_group_of"].values.tolist(), strict=True))
    truth = dict[tuple[str, int], list[np.ndarray]]()
    for sample in drawn:
        prompt, time = prompted(model, sample)
        with patched_linears(monkeypatch) as seen:
            forward(model, sample, prompt, time)
        for module, x in seen.items():
            if names.get(module, "").endswith("mlp.fc2"):
                layer = names[module].removesuffix(".mlp.fc2")
                rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
                truth.setdefault((layer, group_of[float(time)]), []).append(rows)
    assert {layer for layer, _ in truth} == set(group["layer"].values.tolist())
    for (layer, at), parts in truth.items():
        rows = np.concatenate(parts)
        found = moments_of(store, layer, "mlp.fc2", weights=np.eye(2)[at])
        assert found is not None
        assert found.count == len(rows)
        expected, block = rows.T @ rows, np.arange(rows.shape[1]) // 12
        root = np.sqrt(np.diagonal(expected))
        error = np.abs(found.full() - np.where(block[:, None] == block, expected, 0))
        # Tensors are float32, and what is beside them is one forward after another.
        assert (error <= 1e-6 * np.outer(root, root)).all()


def test_every_batch_has_every_timestep_and_every_sample_is_in_one(whole: Path) -> None:
    group = open_store(whole)["activations/mlp.fc2"]
    assert group.sizes["batch"] == 3  # 731.5 was drawn three times, the others four times
    members = [[i for i in row if i >= 0] for row in group["image"].values.tolist()]
    assert sorted(i for row in members for i in row) == list(range(len(TIMES)))
    for row in members:
        assert {TIMES[i] for i in row} == set(TIMES)
    assert (group["count"].values > 0).all()
    assert attribute_of(group, "run")["samples"] == len(TIMES)


def test_streams_are_kept_where_a_sample_is_and_nowhere_else(
    whole: Path, model: LoadedModel
) -> None:
    store = open_store(whole)
    steps = np.array([1000.0, 731.5, LAST], np.float32)
    expected = np.array(TIMES, np.float32)[:, None] == steps
    for stream in ("img", "txt"):
        assert np.array_equal(store.mask(f"blocks/{stream}"), expected)
    for sample in (3, 7):
        prompt, time = prompted(model, sample)
        with watching_blocks(model.mmdit) as streams:
            forward(model, sample, prompt, time)
        step = int(np.flatnonzero(steps == np.float32(TIMES[sample]))[0])
        for name, stream in streams.by_name().items():
            kept = store[f"blocks/{name}"].sel(image=sample, step=step)
            for boundary, tensor in stream.items():
                half = to_numpy(tensor)[:, :, 0].astype(np.float16)
                np.testing.assert_allclose(
                    kept["x"].sel(boundary=boundary).values, half, rtol=2e-3, atol=1e-4
                )
        pooled = store["blocks/pooled"]["pooled_conditioning"].sel(image=sample).values
        index = OF_PROMPT[sample]
        assert np.array_equal(pooled, phase1()["cs_pooled"][index].astype(np.float32))
    assert verify_store(whole).damage == ()


@pytest.mark.parametrize("prompts", ["object", "U"])
@pytest.mark.parametrize("bare", [False, True])
def test_the_file_comes_back_as_it_was(tmp_path: Path, prompts: str, bare: bool) -> None:
    arrays = phase1()
    arrays["prompts"] = arrays["prompts"].astype(prompts)
    arrays["ts"] = arrays["ts"].astype(np.float16)
    if bare:
        del arrays["cs"], arrays["cs_pooled"]
    np.savez(tmp_path / "in.npz", allow_pickle=True, **arrays)
    said = succeed("ingest", tmp_path / "in.npz", tmp_path / "s.zarr")
    assert ("no conditioning" in said.output) == bare
    succeed("export", "dit-cali-data", tmp_path / "s.zarr", "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz", allow_pickle=True) as found:
        assert found.files == list(arrays)
        for key, truth in arrays.items():
            assert (found[key].dtype, found[key].shape) == (truth.dtype, truth.shape), key
            assert np.array_equal(found[key], truth), key


def test_samples_are_drawn_as_the_source_draws_them(
    ingested: Path, weights: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "s.zarr"
    succeed("export", "dit-cali-data", ingested, "-o", tmp_path / "d.npz")
    succeed("ingest", tmp_path / "d.npz", copied)
    call = ("collect", copied, "--model", "tiny32", "--local-ckpt", weights, "--sites", "mlp.fc2")
    succeed(*call, "--num-samples", 6, "--seed", 5)
    drawn = np.random.default_rng(5).choice(len(TIMES), size=6, replace=False)
    group = open_store(copied)["activations/mlp.fc2"]
    images = group["image"].values
    assert sorted(images[images >= 0]) == sorted(drawn)
    assert "samples" in str(run(*call, "--num-samples", 7, "--resume").exception)


def test_a_file_without_conditioning_has_its_prompts_encoded(
    weights: Path, tmp_path: Path, model: LoadedModel
) -> None:
    arrays = {key: value for key, value in phase1().items() if not key.startswith("cs")}
    np.savez(tmp_path / "in.npz", allow_pickle=True, **arrays)
    succeed("ingest", tmp_path / "in.npz", tmp_path / "s.zarr")
    succeed("cache", tmp_path / "s.zarr", "--model", "tiny32", "--local-ckpt", weights)
    pooled = open_store(tmp_path / "s.zarr")["blocks/pooled"]["pooled_conditioning"]
    for sample, index in enumerate(OF_PROMPT):
        truth = model.encode_text(PROMPTS[index], cfg_weight=CFG).pooled
        assert np.array_equal(pooled.sel(image=sample).values, to_numpy(truth))


def test_profile_draws_a_spread_or_the_layers_named(whole: Path, tmp_path: Path) -> None:
    said = succeed("profile", whole, "-o", tmp_path / "all")
    stems = {Path(line).stem for line in said.stdout.splitlines() if line.endswith(".png")}
    for layer in ("mm0_img", "mm2_img", "mm1_txt"):
        assert f"histogram_{layer}_mlp_fc2" in stems, stems
    named = succeed(
        "profile", whole, "-o", tmp_path / "one", "--layer", "mm_01_img", "--layer", "mm0.txt"
    )
    pages = [Path(line).stem for line in named.stdout.splitlines() if line.endswith(".png")]
    for kind in ("histogram", "channels"):
        found = {page for page in pages if page.startswith(f"{kind}_")}
        assert found == {f"{kind}_mm1_img_mlp_fc2", f"{kind}_mm0_txt_mlp_fc2"}
    assert any(page.startswith("heatmap") for page in pages)
    for layer, says in (("nonsense", "'nonsense' is not known"), ("mm9.img", "--layer mm9.img")):
        result = run("profile", whole, "-o", tmp_path / "no", "--layer", layer)
        assert (result.exit_code, says in str(result.exception)) == (1, True)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("layer", ["zz", "mm9.img", "uni*", "mm0.img.mlp.fc1"])
def test_profile_refuses_a_layer_that_there_is_not(whole: Path, tmp_path: Path, layer: str) -> None:
    said = run("profile", whole, "-o", tmp_path / "none", "--layer", "mm0.img", "--layer", layer)
    assert isinstance(said.exception, MissingError)
    assert layer in str(said.exception)
    assert said.stdout == ""
    assert not (tmp_path / "none").exists()


def test_observations_make_a_phase_2_file(whole: Path, tmp_path: Path) -> None:
    succeed("export", "postgelu-npz", whole, "-o", tmp_path / "p.npz")
    group = open_store(whole)["activations/mlp.fc2"].load()
    with np.load(tmp_path / "p.npz") as found:
        keys, edges = set(found.files), found["histogram_bin_edges"]
        assert np.array_equal(edges, np.linspace(-8, 8, 513, dtype=np.float32))
        assert found["timesteps_unique"].tolist() == sorted(set(np.float32(TIMES).tolist()))
        assert {key.partition("::")[0].partition(":")[2] for key in keys if "::" in key} == {
            "qkv_in", "o_in", "fc1_in", "fc2_in",
        }  # fmt: skip
        cell = "mm_01_img:fc2_in::t=8.929688::"
        ours = group.sel(layer="mm1.img").isel(step=2)
        assert int(found[cell + "count"]) == int(ours["count"].sum())
        assert np.array_equal(found[cell + "max"], ours["max"].max("batch").astype(np.float64))
        assert found[cell + "histogram"].dtype == np.int64
    succeed("ingest", tmp_path / "p.npz", tmp_path / "again.zarr")
    again = open_store(tmp_path / "again.zarr")["pooled/postgelu/mlp.fc2"]
    assert again["layer"].values.tolist() == group["layer"].values.tolist()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--seed", 3], 2, "--num-samples"),
        (["--num-samples", 0], 2, "--num-samples"),
        (["--num-samples", 3, "--images", "0-1"], 2, "--images"),
        (["--images", "0-1"], 1, "no image ids"),
        ([], 1, "--model"),
        (["--model", "reference"], 1, "conditioning_channel"),
    ],
)
@pytest.mark.parametrize("command", ["collect", "cache", "profile"])
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, command: str, words: list[object], code: int, said: str
) -> None:
    np.savez(tmp_path / "in.npz", allow_pickle=True, **phase1())
    succeed("ingest", tmp_path / "in.npz", tmp_path / "s.zarr")
    result = run(command, tmp_path / "s.zarr", *words)
    assert result.exit_code == (code if code == 2 else 1)
    text = result.output if code == 2 else str(result.exception)
    assert said in text
    assert list(open_store(tmp_path / "s.zarr")) == ["samples"]
