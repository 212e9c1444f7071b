"""Collected statistics are those of the raw tensors, and give what the source scripts made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.ingest import ingest
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.reducers import mlx_reducer, numpy_reducer
from taqstore.pipelines.models.table import ModelRow

from support.live_capture import naive_histogram, needs_models, raw_inputs
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny, write_checkpoint
from support.same_stores import assert_same_bits
from taqstore import TaqError, open_store
from taqstore.analysis.pooling import pool
from taqstore.errors import MissingError, MisuseError
from taqstore.names import SITES, parse_layer
from taqstore.run.mode import Mode
from taqstore.statistics.bins import Layout
from taqstore.statistics.channel_histogram import count_blocks
from taqstore.statistics.observation import observe
from taqstore.testing import RunShape
from taqstore.testing.activations import manifest, save_step
from taqstore.testing.files import save_json
from taqstore.testing.formulas import ChannelRecord, channel_arrays, index_entry
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
IMAGES, STEPS = 3, 4
PROMPTS = ("a cat", "ein Hund, groß", "seven")


def make_store(folder: Path, row: ModelRow) -> Path:
    """Latents of `IMAGES` images by a tiny random model."""
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), encoding="utf-8")
    checkpoint = write_checkpoint(folder / "w.safetensors", flux=row.pipeline == "FluxPipeline")
    request = Request(row.name, prompts, IMAGES, steps=STEPS, local_ckpt=checkpoint)
    generate(folder / "run.zarr", request)
    return folder / "run.zarr"


@pytest.fixture(scope="module", params=[TINY, TINY32, TINY_FLUX], ids=lambda row: row.name)
def collected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, LoadedModel]:
    folder = tmp_path_factory.mktemp("live")
    row: ModelRow = request.param
    store = make_store(folder, row)
    collect(store, stride=1, local_ckpt=folder / "w.safetensors", per_channel=["mlp.fc2"])
    return store, load_tiny(folder, row)


def raw_of(
    store: Path, model: LoadedModel, patch: pytest.MonkeyPatch, image: int, step: int
) -> dict[str, np.ndarray]:
    latents = open_store(store)["latents"].sel(image=image, step=step)
    return raw_inputs(
        model, patch, latents["x"].values, prompt=str(latents["prompt"].values),
        cfg=float(latents["cfg_weight"]), timestep=latents["timestep"].values[()],
        sigma=latents["sigma"].values[()],
    )  # fmt: skip


def compare_with_naive(found: xr.Dataset, x: np.ndarray) -> None:
    wide = x.astype(np.float64)
    assert_same_bits(found["min"].values, x.min(axis=0), "min")
    assert_same_bits(found["max"].values, x.max(axis=0), "max")
    assert (found["tensor_min"], found["tensor_max"]) == (x.min(), x.max())
    assert found["count"] == len(x)
    scale = np.abs(wide).max()
    np.testing.assert_allclose(found["mean"], wide.mean(axis=0), rtol=1e-6, atol=1e-6 * scale)
    spread = np.square(wide - wide.mean(axis=0)).sum(axis=0)
    np.testing.assert_allclose(found["m2"], spread, rtol=1e-6)
    assert found["histogram"].values.tolist() == naive_histogram(x, 5).tolist()
    assert found["nonfinite"].values.tolist() == [0, 0, 0]


def test_statistics_equal_naive_numpy_for_every_linear_at_every_step(
    collected: tuple[Path, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = collected
    groups = {site: open_store(store)[f"activations/{site}"].load() for site in SITES}
    seen = 0
    for image in range(IMAGES):
        for step in range(STEPS):
            for name, x in raw_of(store, model, monkeypatch, image, step).items():
                layer = parse_layer(name)
                found = groups[layer.site].sel(batch=image, step=step, layer=layer.layer)
                compare_with_naive(found, x)
                seen += 1
    linears = {"tiny": 33, "tiny32": 33, "tiny-flux": 36}[model.row.name]
    assert seen == IMAGES * STEPS * linears


def test_every_layer_of_every_site_is_there_in_store_order(
    collected: tuple[Path, LoadedModel],
) -> None:
    store, model = collected
    multimodal = [f"mm{i}.{s}" for i in range(3) for s in ("img", "txt")]
    flux = [*multimodal[:4], "uni0", "uni1"]
    for site in SITES:
        layers = open_store(store)[f"activations/{site}"]["layer"].values.tolist()
        whole = flux if model.row.name == "tiny-flux" else multimodal
        kept = whole if site == "attn.qkv" or whole is flux else whole[:-1]
        assert layers == kept


def test_channel_histograms_are_counts_per_channel_and_add_up(
    collected: tuple[Path, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = collected
    found = open_store(store)["channel_histograms/mlp.fc2"].sel(batch=1, step=2)
    raw = raw_of(store, model, monkeypatch, 1, 2)
    for layer in found["layer"].values:
        counts = found["channel_histogram"].sel(layer=layer).values
        x = raw[f"{layer}.mlp.fc2"]
        assert counts[5].tolist() == naive_histogram(x[:, 5], 3).tolist()
        assert counts.sum(axis=0).tolist() == naive_histogram(x, 3).tolist()


def test_the_collected_store_is_whole(collected: tuple[Path, LoadedModel]) -> None:
    assert verify_store(collected[0]).damage == ()


def test_rules_of_the_source_follow_from_observations_bit_for_bit(
    collected: tuple[Path, LoadedModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What ingest derives from the source's files equals what our observations give."""
    store, model = collected
    for step in range(STEPS):
        records: dict[str, ChannelRecord] = {}
        for image in range(IMAGES):
            for name, x in raw_of(store, model, monkeypatch, image, step).items():
                record = records.setdefault(name, ChannelRecord(post_gelu=name.endswith("fc2")))
                record.update(x.astype(np.float32), np.random.default_rng(1))
        arrays = {k: v for n, r in records.items() for k, v in channel_arrays(r, n).items()}
        index = {name: index_entry(record) for name, record in records.items()}
        save_step(tmp_path / "activations", step, arrays, index)
    shape = RunShape(images=IMAGES, steps=STEPS, stats_stride=1)
    document = manifest(list(range(STEPS)), shape)
    save_json(tmp_path / "activations" / "layer_statistics.json", document)
    ingest([tmp_path / "activations"], tmp_path / "old.zarr")
    old, new = open_store(tmp_path / "old.zarr"), open_store(store)
    for site in SITES:
        theirs = old[f"pooled/timestep_stats/{site}"]
        ours = pool(new[f"activations/{site}"], site=site).sel(layer=theirs["layer"])
        names = ("avg_min", "avg_max", *(["shift"] if site == "mlp.fc2" else []))
        for name in names:
            values = ours[name].values
            assert_same_bits(values.astype("f4"), theirs[name].values, f"{site} {name}")
            assert (values == theirs[name].values).all()


def test_grouped_images_are_one_batch_with_the_merged_statistics(
    collected: tuple[Path, LoadedModel], tmp_path: Path
) -> None:
    store, model = collected
    single = open_store(store)["activations/mlp.fc1"].load()
    other = make_store(tmp_path, model.row)
    collect(
        other, stride=1, sites=["mlp.fc1"], images_per_batch=2,
        local_ckpt=tmp_path / "w.safetensors",
    )  # fmt: skip
    found = open_store(other)["activations/mlp.fc1"].load()
    assert found["image"].values.tolist() == [[0, 1], [2, -1]]
    assert_same_bits(found["min"].values[0], single["min"].values[:2].min(axis=0))
    both = single["histogram"].values[:2].sum(axis=0, dtype=np.uint32)
    assert_same_bits(found["histogram"].values[0], both)
    assert (found["count"].values[0] == single["count"].values[:2].sum(axis=0)).all()
    assert_same_bits(found["mean"].values[1], single["mean"].values[2])


def test_steps_written_in_runs_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path, TINY)
    collect(store, stride=1, local_ckpt=tmp_path / "w.safetensors", sites=["mlp.fc2"])
    whole = open_store(store)["activations/mlp.fc2"].load()
    monkeypatch.setattr("taqstore.pipelines.collect.collect.SHARD_BYTES", 120_000)
    collect(
        store, stride=1, local_ckpt=tmp_path / "w.safetensors", sites=["mlp.fc2"],
        mode=Mode(force=True),
    )  # fmt: skip
    split = open_store(store)["activations/mlp.fc2"]
    runs = list((store / "activations" / "mlp.fc2" / "min" / "c" / "0").iterdir())
    assert len(runs) > 1
    xr.testing.assert_identical(split.load().drop_attrs(), whole.drop_attrs())
    assert verify_store(store).damage == ()


def test_the_mlx_reducer_agrees_with_numpy() -> None:
    from taqstore.pipelines.models.backend import backend

    mx, rng = backend().mx, np.random.default_rng(3)
    for dtype in (np.float16, np.float32):
        x = (rng.standard_t(3, (2, 301, 1, 7)) * 30 + 200).astype(dtype)
        x[0, :5, 0, 2] = -0.0
        ours, theirs = (f([mx.array(x)], 5)[0] for f in (mlx_reducer, numpy_reducer))
        assert_same_bits(ours.min, theirs.min)
        assert_same_bits(ours.max, theirs.max)
        assert_same_bits(ours.histogram, theirs.histogram)
        assert (ours.count, ours.layout) == (theirs.count, theirs.layout)
        np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-7)
        np.testing.assert_allclose(ours.m2, theirs.m2, rtol=1e-6)
    x[0, 0, 0, 0] = np.inf
    assert mlx_reducer([mx.array(x)], 5)[0].nonfinite.tolist() == [0, 1, 0]


def test_channel_counts_keep_negative_zero_and_leave_out_what_is_not_finite() -> None:
    x = np.array([[-0.0, np.nan], [0.0, np.inf], [-1.0, -np.inf], [1.5, 65504]], np.float16)
    counts = np.concatenate(list(count_blocks(x, Layout("float16", 3))))
    zero = Layout("float16", 3).zero_bin
    assert (counts[0, zero], counts[0].sum(), counts[1].sum()) == (2, 4, 1)
    assert counts[0].tolist() == observe(x[:, :1], mantissa_bits=3).histogram.tolist()
    with pytest.raises(TaqError, match="float32"):
        list(count_blocks(x.astype(np.float32), Layout("float16", 3)))


def test_what_cannot_be_collected_is_said(tmp_path: Path) -> None:
    store = make_store(tmp_path, TINY)
    weights = tmp_path / "w.safetensors"
    with pytest.raises(MissingError, match=r"complete latents of image 9.*complete: 0, 1, 2"):
        collect(store, images=[0, 9], local_ckpt=weights)
    with pytest.raises(MisuseError, match=r"site 'mlp\.fc3' is not known; did you mean mlp\.fc2\?"):
        collect(store, sites=["mlp.fc3"], local_ckpt=weights)
    with pytest.raises(TaqError, match="images-per-batch"):
        collect(store, per_channel=["mlp.fc2"], images_per_batch=2, local_ckpt=weights)
    with pytest.raises(MisuseError, match="not observed"):
        collect(store, sites=["mlp.fc1"], per_channel=["mlp.fc2"], local_ckpt=weights)
    other = write_checkpoint(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(TaqError, match="other weights"):
        collect(store, local_ckpt=other)
