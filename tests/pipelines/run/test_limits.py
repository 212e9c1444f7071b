"""What a model does not take is refused in one line before anything is made, by every command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.evaluate.evaluate import evaluate
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.limits import Use, check_use
from taqstore.pipelines.models.table import MODELS
from taqstore.pipelines.profile import profile

from support.live_capture import needs_models
from support.live_models import TINY
from support.rounding_store import make_rounding_store
from taqstore import create_store, open_store
from taqstore.errors import TaqError
from taqstore.kinds.templates import latents_template

pytestmark = needs_models

# What is asked of the reference model beyond what it takes, and the option that is named.
BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "too large": ({"latent_size": (64, 64)}, "--latent-size"),
    "too wide": ({"latent_size": (16, 18)}, "--latent-size"),
    "odd": ({"latent_size": (7, 8)}, "--latent-size"),
    "empty": ({"latent_size": (0, 8)}, "--latent-size"),
    "no steps": ({"steps": 0}, "--steps"),
    "too many steps": ({"steps": 1001}, "--steps"),
    "shift 0": ({"shift": 0.0}, "--timestep-shift"),
    "shift below 0": ({"shift": -1.0}, "--timestep-shift"),
    "shift nan": ({"shift": float("nan")}, "--timestep-shift"),
    "shift inf": ({"shift": float("inf")}, "--timestep-shift"),
    "shift that loses levels": ({"shift": 1e-30}, "--timestep-shift"),
    "cfg 0": ({"cfg_weight": 0.0}, "--cfg"),
    "cfg below 0": ({"cfg_weight": -1.0}, "--cfg"),
    "cfg nan": ({"cfg_weight": float("nan")}, "--cfg"),
    "cfg inf": ({"cfg_weight": float("inf")}, "--cfg"),
    "negative unused": ({"cfg_weight": 1.0, "negative_prompt": "bold"}, "--cfg"),
    "dtype": ({"dtype": "int8"}, "--dtype"),
    "t5": ({"use_t5": True}, "--t5"),
    "seed": ({"seed": 1 << 32}, "--seed"),
    "last seed": ({"seed": (1 << 32) - 1, "images": 2}, "--seed"),
    "seed below 0": ({"seed": -1}, "--seed"),
}


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[..., Request]:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a three\n", encoding="utf-8")

    def make(**asked: Any) -> Request:
        return replace(Request("reference", prompts, 1, steps=2), **asked)

    return make


@pytest.mark.parametrize("name", BEYOND)
def test_generate_refuses_before_anything_is_made(
    name: str, request_of: Callable[..., Request], tmp_path: Path
) -> None:
    asked, option = BEYOND[name]
    with pytest.raises(TaqError, match=option) as error:
        generate(tmp_path / "s.zarr", request_of(**asked))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize(
    "asked",
    [{"latent_size": (16, 16)}, {"latent_size": (2, 2)}, {"steps": 1}, {"seed": (1 << 32) - 1},
     {"shift": 1e-3}, {"cfg_weight": 1e-3}, {"cfg_weight": 1.5, "negative_prompt": "bold"}],
)  # fmt: skip
def test_the_limits_themselves_are_taken(
    asked: dict[str, Any], request_of: Callable[..., Request], tmp_path: Path
) -> None:
    assert generate(tmp_path / "s.zarr", request_of(**asked)).written == 1


def test_everything_wrong_is_named_at_once() -> None:
    use = Use(latent_size=(64, 64), steps=0, cfg_weights=(0.0,), shift=0.0)
    with pytest.raises(TaqError) as error:
        check_use(MODELS["reference"], use)
    for option in ("--latent-size", "--steps", "--cfg", "--timestep-shift"):
        assert option in str(error.value)


@pytest.mark.parametrize(
    ("use", "option"),
    [(Use(use_t5=False), "--t5"), (Use(cfg_weights=(1.0,)), "--cfg"),
     (Use(cfg_weights=(0.0,), negative="x"), "--negative-prompt"),
     (Use(latent_size=(63, 64)), "--latent-size")],
)  # fmt: skip
def test_a_model_without_guidance_has_limits_of_its_own(use: Use, option: str) -> None:
    row = MODELS["flux-schnell"]
    check_use(row, Use(latent_size=(512, 512), cfg_weights=(0.0,), steps=4, use_t5=True))
    with pytest.raises(TaqError, match=option):
        check_use(row, use)


def test_a_prompt_that_is_not_seen_whole_is_named(
    request_of: Callable[..., Request], tmp_path: Path
) -> None:
    request = request_of()
    long = " ".join(f"w{i}" for i in range(13))
    request.prompts.write_text(f"a three\n{long}\nnever used\n", encoding="utf-8")
    outcome = generate(tmp_path / "s.zarr", replace(request, images=2))
    assert len(outcome.notes) == 1
    assert "12 of 13 words" in outcome.notes[0]
    assert "w0 w1" in outcome.notes[0]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rounding_store(tmp_path_factory.mktemp("limits"), TINY)


RERUNS: dict[str, Callable[..., object]] = {
    "cache": cache,
    "collect": collect,
    "evaluate": evaluate,
    "profile": lambda store, **options: profile(store, Path(f"{store}.plots"), **options),
}


@pytest.mark.parametrize("name", RERUNS)
@pytest.mark.parametrize("wrong", ["size", "channels", "guidance"])
def test_latents_of_another_model_are_refused_before_anything_is_made(
    name: str, wrong: str, filled: Path, tmp_path: Path
) -> None:
    """As a run folder may hold them: nothing was generated here."""
    store = tmp_path / "s.zarr"
    shape = {"size": (64, 64, 16), "channels": (8, 4, 4)}.get(wrong, (8, 4, 16))
    template = latents_template(
        images=[0], prompts=["a cat"], seeds=[1], cfg_weight=0.0 if wrong == "guidance" else 5.0,
        sigmas=np.array([1.0, 0.5, 0.0], np.float32),
        timesteps=np.array([1000, 500, 0], np.float16), shape=shape, attrs={},
    )  # fmt: skip
    with create_store(store) as writer:
        group = writer.group(template)
        group.put("x", (0, 0, 0, 0, 0), np.ones((1, 3, *shape), np.float32))
        group.commit([(0,)])
    before = sorted(path for path in store.rglob("*"))
    with pytest.raises(TaqError, match="tiny") as error:
        RERUNS[name](store, model="tiny", local_ckpt=filled.with_name("w.safetensors"))
    assert "\n" not in str(error.value)
    assert sorted(path for path in store.rglob("*")) == before
    assert list(open_store(store)) == ["latents"]
    shutil.rmtree(store)
