"""AdaRound outputs written by hand with NumPy, as the source's optimiser leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, FFN = 6, 12
SHAPES = {
    **{f"attn.{p}_proj": (HIDDEN, HIDDEN) for p in "qkvo"},
    "mlp.fc1": (FFN, HIDDEN),
    "mlp.fc2": (HIDDEN, FFN),
}
HALVES = ("image_transformer_block", "text_transformer_block")


def paths_of(block: str, *, last: bool = False) -> list[str]:
    """12 linears of a multimodal block, 9 of the last one; 6 of a unified one."""
    if block.startswith("uni"):
        return [f"transformer_block.{part}" for part in SHAPES]
    every = [f"{half}.{part}" for half in HALVES for part in SHAPES]
    gone = ("attn.o_proj", "mlp.fc1", "mlp.fc2") if last else ()
    return [p for p in every if not (p.startswith("text") and p.endswith(gone))] if last else every


def make_output(
    folder: Path,
    *,
    blocks: tuple[str, ...] = ("mm0", "mm1"),
    later: bool = False,
    dtype: str = "float16",
    groups: int = 1,
    **config: Any,
) -> Path:
    """Write `config.json` and `weights/*.npz`.

    `later` is the later revision: `alpha` beside the rest, more settings and metrics.
    """
    rng = np.random.default_rng([11, later, groups])
    (folder / "weights").mkdir(parents=True)
    metrics = []
    for number, block in enumerate(blocks):
        paths = paths_of(block, last=block.startswith("mm") and number == len(blocks) - 1)
        members: dict[str, np.ndarray] = {}
        for path in paths:
            out, into = SHAPES[path.split(".", 1)[1]]
            stem = path.replace(".", "_")
            members[f"{stem}__weight_int"] = rng.integers(-8, 8, (out, into)).astype(np.int8)
            scale = rng.uniform(0.01, 0.3, (out, groups))
            members[f"{stem}__scale"] = scale.astype(dtype)
            members[f"{stem}__a_scale"] = np.array([rng.uniform(0.01, 0.2)])
            if later:
                members[f"{stem}__alpha"] = rng.normal(size=(out, into)).astype(np.float32)
        np.savez_compressed(folder / "weights" / f"{block}.npz", **members)  # type: ignore[arg-type]
        one: dict[str, Any] = {
            "block_name": block, "iters": 250, "final_loss": 0.1 + number, "min_loss": 0.05,
            "loss_history_stride100": [3.7, 1.1, 0.1 + number], "quant_paths": paths,
        }  # fmt: skip
        metrics.append({**one, **({"initial_loss": 3.7, "refined": False} if later else {})})
    document = {
        "format": "adaround_v1", "model_version": "argmaxinc/mlx-stable-diffusion-3-medium",
        "bits_w": 4, "bits_a": 8, "iters": 250, "batch_size": 16, "w_lr": 1e-3, "a_lr": 4e-5,
        "n_blocks_quantised": len(blocks), "block_metrics": metrics,
        **({"grad_accum": 1, "poly_schedule": None, "exclude_layers": [],
            "asymmetric_act": False, "group_size": 0} if later else {}),
        **config,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    return folder


def members_of(folder: Path) -> dict[str, np.ndarray]:
    """`block.member` -> array, of all npz of an output."""
    found = {}
    for path in sorted((folder / "weights").glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found |= {f"{path.stem}.{name}": file[name] for name in file.files}
    return found
