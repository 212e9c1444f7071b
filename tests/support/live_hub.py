"""Child process: SD3-Medium's row on an offline hub cache with tiny files, real CLIP encoders."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import load_pipeline, to_numpy
from taqstore.pipelines.models.sampling import make_schedule, trajectory
from taqstore.pipelines.models.table import MODELS

from support.live_models import tiny_config
from taqstore.testing.checkpoint import MMDiTShape, make_checkpoint

HOME = Path(os.environ["HF_HOME"])
SHAPE = MMDiTShape(text=4096, pooled=16)
CLIP = {
    "architectures": ["CLIPTextModelWithProjection"], "num_hidden_layers": 2, "hidden_size": 8,
    "num_attention_heads": 2, "max_position_embeddings": 77, "vocab_size": 60, "projection_dim": 8,
}  # fmt: skip


def sd3_config() -> Any:
    return replace(tiny_config(), token_level_text_embed_dim=4096, pooled_text_embed_dim=16)


def snapshot(repo: str) -> Path:
    base = HOME / "hub" / f"models--{repo.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("0" * 40)
    folder = base / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    return folder


def write_clip(folder: Path) -> None:
    mx, utils = backend().mx, backend().utils
    from diffusionkit.mlx.clip import CLIPTextModel
    from diffusionkit.mlx.config import CLIPTextModelConfig

    letters = [chr(ord("a") + i) for i in range(26)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    for name in ("l", "g"):
        clip, tokens = folder / f"clip_{name}", folder / f"tokenizer_{name}"
        clip.mkdir()
        tokens.mkdir()
        (clip / "config.json").write_text(json.dumps(CLIP))
        model = CLIPTextModel(CLIPTextModelConfig(2, 8, 2, 77, 60, 8))
        rng = np.random.default_rng(len(name))
        weights = {
            key: mx.array(rng.standard_normal(value.shape).astype(np.float16))
            for key, value in utils.tree_flatten(model.parameters())
        }
        mx.save_safetensors(str(clip / "model.fp16.safetensors"), weights)
        (tokens / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
        (tokens / "merges.txt").write_text("#version\nz z\n")


def main() -> None:
    row = replace(MODELS["sd3-medium"], config="live_hub:sd3_config")
    folder = snapshot(row.hub)
    (folder / "config.json").write_text("{}")
    make_checkpoint(folder / "sd3_medium.safetensors", shape=SHAPE)
    write_clip(snapshot("argmaxinc/stable-diffusion"))
    model = load_pipeline(row, use_t5=False)
    conditioning = model.encode_text("a cat", cfg_weight=5.0, negative="ugly")
    schedule = make_schedule(model, 3)
    prompt = model.prepare(conditioning, schedule.timesteps)
    *_, last = trajectory(model, prompt, schedule, seed=1, latent_size=(4, 4))
    theirs, _ = model.pipeline.denoise_latents(
        conditioning.tokens, conditioning.pooled, num_steps=3, cfg_weight=5.0,
        latent_size=(4, 4), seed=1,
    )  # fmt: skip
    same = np.array_equal(to_numpy(model.pipeline.latent_format.process_out(last)), theirs)
    rows = to_numpy(conditioning.pooled)
    print(json.dumps({
        "same": bool(same), "shape": list(conditioning.tokens.shape), "dtype": model.dtype,
        "shift": model.sampler.shift, "distinct": bool((rows[0] != rows[1]).any()),
        "digest": model.digest,
    }))  # fmt: skip


if __name__ == "__main__":
    sys.modules["live_hub"] = sys.modules["__main__"]
    main()
