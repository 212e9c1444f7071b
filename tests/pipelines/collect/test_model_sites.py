"""Statistics of what a model has but once, and of adaLN; which sites are collected when."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.models.inputs import inputs_of
from taqstore.pipelines.models.load import LoadedModel
from taqstore.pipelines.models.table import ModelRow

from support.live_capture import model_names, naive_histogram, needs_models, raw_inputs
from support.live_models import TINY, TINY32, TINY_FLUX, load_tiny
from support.live_store import make_live_store
from support.same_stores import assert_same_bits
from taqstore import open_store
from taqstore.errors import MisuseError, StoreError
from taqstore.kinds.coverage import coverage
from taqstore.names import ADALN, MODEL_SITES, SITES, parse_layer
from taqstore.run.mode import Mode
from taqstore.store.attributes import attribute_of
from taqstore.upkeep.info import describe_store
from taqstore.upkeep.verify import verify_store

pytestmark = needs_models
IMAGES, STEPS = 2, 2
EVERY = (*SITES, *MODEL_SITES)


@pytest.fixture(scope="module", params=[TINY, TINY32, TINY_FLUX], ids=lambda row: row.name)
def collected(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, LoadedModel]:
    folder = tmp_path_factory.mktemp("sites")
    row: ModelRow = request.param
    store = make_live_store(folder, row, images=IMAGES, steps=STEPS)
    collect(store, stride=1, local_ckpt=folder / "w.safetensors")
    return store, load_tiny(folder, row)


def patches(x: np.ndarray, weight: tuple[int, ...]) -> np.ndarray:
    """Patches of ``(row, height, width, channel)``, one after another, by two loops."""
    _, high, wide, _ = weight
    rows = [
        image[i : i + high, j : j + wide].reshape(-1)
        for image in x
        for i in range(0, image.shape[0], high)
        for j in range(0, image.shape[1], wide)
    ]
    return np.stack(rows)


def test_statistics_equal_naive_numpy_for_every_other_linear_at_every_step(
    collected: tuple[Path, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = collected
    groups = {site: open_store(store)[f"activations/{site}"].load() for site in MODEL_SITES}
    for image in range(IMAGES):
        for step in range(STEPS):
            latents = open_store(store)["latents"].sel(image=image, step=step)
            raw = raw_inputs(
                model, monkeypatch, latents["x"].values, prompt=str(latents["prompt"].values),
                cfg=float(latents["cfg_weight"]), timestep=latents["timestep"].values[()],
                sigma=latents["sigma"].values[()], named=model_names,
            )  # fmt: skip
            shape = model.mmdit.x_embedder.proj.weight.shape
            raw["x_embedder.embed.image"] = patches(raw["x_embedder.embed.image"], shape)
            for name, x in raw.items():
                tensor = parse_layer(name).input
                group = groups[tensor.site]
                found = group.sel(batch=image, step=step, layer=tensor.layer)
                x = x.astype(found["min"].dtype)  # an embedding of the timestep is narrower
                wide = x.astype(np.float64)
                assert_same_bits(found["min"].values, x.min(axis=0), name)
                assert_same_bits(found["max"].values, x.max(axis=0), name)
                assert found["count"] == len(x)
                scale = np.abs(wide).max()
                mean = wide.mean(axis=0)
                np.testing.assert_allclose(found["mean"], mean, rtol=1e-6, atol=1e-6 * scale)
                spread = np.square(wide - mean).sum(axis=0)
                tiny = 1e-7 * scale * scale
                np.testing.assert_allclose(found["m2"], spread, rtol=1e-6, atol=tiny)
                assert found["histogram"].values.tolist() == naive_histogram(x, 5).tolist()
            assert len(raw) == {"tiny": 14, "tiny32": 14, "tiny-flux": 14}[model.row.name]


def test_the_store_is_whole_and_says_that_it_covers_the_model(
    collected: tuple[Path, LoadedModel],
) -> None:
    store, model = collected
    opened = open_store(store)
    assert verify_store(store).damage == ()
    assert [p for p in opened if p.startswith("activations/")] == sorted(
        f"activations/{site}" for site in EVERY
    )
    found = coverage(opened)
    assert found is not None
    readers = [reader for one in model.inputs() for reader in one.readers]
    assert found.observed == found.total == sum(reader.matrix().size for reader in readers)
    assert describe_store(opened)["coverage"]["percent"] == 100.0
    told = attribute_of(opened[f"activations/{ADALN}"], "linears")["modulation"]
    assert told == {
        reader.name.full: reader.shape[0] for reader in readers if reader.name.site == ADALN
    }


def test_sites_are_chosen_added_and_resumed(tmp_path: Path) -> None:
    store = make_live_store(tmp_path, TINY32, images=IMAGES, steps=STEPS)
    weights, path = tmp_path / "w.safetensors", "activations/{}".format

    def sites() -> list[str]:
        return [site for site in EVERY if path(site) in open_store(store)]

    collect(store, images=[0], sites=list(SITES), local_ckpt=weights)
    share = coverage(open_store(store))
    assert share is not None
    assert 50 < share.percent < 90
    collect(store, images=[0], sites=[ADALN], local_ckpt=weights)
    assert sites() == [*SITES, ADALN]
    with pytest.raises(StoreError, match=r"activations/attn\.qkv already holds"):
        collect(store, local_ckpt=weights)
    before = open_store(store)[path(ADALN)].load()
    done = collect(store, local_ckpt=weights, mode=Mode(resume=True))
    assert sites() == [*SITES, ADALN]
    assert any("--sites embed.image," in note for note in done.notes)
    after = open_store(store)[path(ADALN)].load()
    assert after.sizes["batch"] == IMAGES
    assert after.sel(batch=[0]).equals(before)
    collect(store, sites=list(EVERY), local_ckpt=weights, mode=Mode(resume=True))
    assert sites() == list(EVERY)
    assert open_store(store)[path(ADALN)].load().equals(after)
    assert verify_store(store).damage == ()


def test_sites_of_an_older_store_are_resumed_without_a_word_of_its_linears(tmp_path: Path) -> None:
    """Stores of versions that knew four sites, and kept no linears in their groups."""
    store = make_live_store(tmp_path, TINY, images=IMAGES, steps=STEPS)
    weights = tmp_path / "w.safetensors"
    collect(store, images=[0], sites=list(SITES), local_ckpt=weights)
    assert coverage(open_store(store)) is not None
    groups = {path: data.drop_attrs() for path, data in open_store(store).items()}
    assert coverage({p: d for p, d in groups.items() if p.startswith("activations")}) is None
    done = collect(store, local_ckpt=weights, mode=Mode(resume=True))
    opened = open_store(store)
    assert [opened[f"activations/{site}"].sizes["batch"] for site in SITES] == [IMAGES] * 4
    assert not any(f"activations/{site}" in opened for site in MODEL_SITES)
    assert len(done.notes) == 1


def test_a_site_that_the_model_lacks_is_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_live_store(tmp_path, TINY, images=1, steps=1)
    known = LoadedModel.inputs

    def without_text(model: LoadedModel) -> tuple[object, ...]:
        return tuple(one for one in known(model) if one.site != "embed.text")

    monkeypatch.setattr(LoadedModel, "inputs", without_text)
    weights = tmp_path / "w.safetensors"
    with pytest.raises(MisuseError, match=r"tiny has no site embed\.text; .*attn\.qkv, "):
        collect(store, sites=["embed.text"], local_ckpt=weights)
    collect(store, local_ckpt=weights)
    assert "activations/embed.text" not in open_store(store)


def test_sd3_medium_is_covered_whole_and_by_four_sites_to_two_thirds() -> None:
    """Its own config, built by DiffusionKit; MLX makes no weight before one is asked for."""
    from diffusionkit.mlx.config import SD3_2b
    from diffusionkit.mlx.mmdit import MMDiT

    inputs = inputs_of(MMDiT(SD3_2b))
    total = sum(one.weights for one in inputs)
    assert [sum(one.site == site for one in inputs) for site in SITES] == [48, 47, 47, 47]
    assert len(inputs) == 189 + len(MODEL_SITES)
    blocks = sum(one.weights for one in inputs if one.site in SITES)
    adaln = sum(one.weights for one in inputs if one.site == ADALN)
    square = 1536 * 1536  # 24 blocks of two streams, the last text of which has q, k, v and shifts
    once = 64 * 1536 + 4096 * 1536 + (2048 + 256) * 1536 + 2 * square + 2 * square + 64 * 1536
    assert total == (24 * 18 + 23 * 18 + 5) * square + once
    assert (round(100 * blocks / total), round(100 * adaln / total, 1)) == (66, 33.3)


def test_info_tells_the_share(collected: tuple[Path, LoadedModel]) -> None:
    from click.testing import CliRunner

    from taqstore.cli import cli

    done = CliRunner().invoke(cli, ["info", str(collected[0])])
    assert "inputs of 100 % of the model's weights observed" in done.stdout
    done = CliRunner().invoke(cli, ["info", str(collected[0]), "--json"])
    assert json.loads(done.stdout)["coverage"]["percent"] == 100.0
