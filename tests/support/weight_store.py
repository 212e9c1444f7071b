"""Quantized weights of a made model of two blocks in a store; the last puts out no text.

All that may differ does: groups of steps, of inputs, dtypes by site; bits by layer and group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from taqstore.kinds.weights import METHODS, reconstruction_template, weights_template
from taqstore.layout.template import Template
from taqstore.names import SITES, WEIGHTS, site_of
from taqstore.store.writer import create_store

HIDDEN, FFN = 6, 10
SHAPES = {
    "attn.qkv": (HIDDEN, HIDDEN),
    "attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.fc1": (FFN, HIDDEN),
    "mlp.fc2": (HIDDEN, FFN),
}
LAYERS = ("mm0.img", "mm0.txt", "mm1.img", "mm1.txt")
SIGMA_LOWER = {
    "attn.qkv": np.float32([0.6, 0.0]),
    "attn.o_proj": np.float32([0.0]),
    "mlp.fc1": np.float32([0.7, 0.3, -0.1]),
    "mlp.fc2": np.float32([0.4, 0.0]),
}
GROUPS = {"attn.qkv": 2, "attn.o_proj": 1, "mlp.fc1": 3, "mlp.fc2": 5}
RUN = {"model": "made", "bits": 4, "activation_bits": 8, "iterations": 30, "learning_rate": 1e-3}


def layers_of(site: str) -> tuple[str, ...]:
    return LAYERS if site == "attn.qkv" else LAYERS[:-1]


def site_template(site: str, *, set: str = "adaround", folder: str | None = None) -> Template:
    return weights_template(
        site, set=set, folder=folder, layers=layers_of(site), shape=SHAPES[site],
        groups=GROUPS[site], sigma_lower=SIGMA_LOWER[site],
        shifted=site == "mlp.fc2", multiplied=site == "attn.o_proj",
        rounding_dtype="float16" if site == "mlp.fc1" else "float32", attrs={"run": RUN},
    )  # fmt: skip


def site_values(template: Template, *, seed: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, len(site_of(template.path))])
    steps = ("step_size", "activation_step", "activation_multiplier")
    found: dict[str, np.ndarray] = {}
    for array in template.arrays:
        shape = template.shape(array)
        if array.name == "activation_bits":
            found[array.name] = rng.choice([4, 6, 8], shape).astype(np.int8)
        elif array.name == "activation_zero_point":
            some = rng.integers(0, 2, shape)
            found[array.name] = (some * rng.integers(-8, 8, shape)).astype(np.int32)
        elif array.name == "weight_bits":
            found[array.name] = np.full(shape, RUN["bits"], np.int8)
        elif array.dtype.startswith("int"):
            found[array.name] = rng.integers(-8, 8, shape).astype(array.dtype)
        else:
            values = rng.normal(size=shape)
            found[array.name] = (abs(values) if array.name in steps else values).astype(array.dtype)
    return found


def write_weights(
    path: Path,
    *,
    blocks: Sequence[str] = ("mm0", "mm1"),
    set: str = "adaround",
    seed: int = 6,
    old: bool = False,
) -> Path:
    """`blocks` are complete; of the others layers are flagged, but not the block.

    With `old`, in `weights/<site>` as versions without sets wrote them.
    """
    with create_store(path) as writer:
        for site in SITES:
            template = site_template(site, set=set, folder=WEIGHTS if old else None)
            group, values = writer.group(template), site_values(template, seed=seed)
            for layer in range(len(layers_of(site))):
                for name, whole in values.items():
                    start = (layer,) + (0,) * (whole.ndim - 1)
                    group.put(name, start, whole[layer : layer + 1])
                group.commit([(layer,)])
        template = reconstruction_template(
            set=set, blocks=("mm0", "mm1"), streams=("img", "txt"), iterations=[0, 10, 20]
        )
        group, values = writer.group(template), reconstruction_values()
        for index, block in enumerate(("mm0", "mm1")):
            if block in blocks:
                for name, whole in values.items():
                    start = (index,) + (0,) * (whole.ndim - 1)
                    group.put(name, start, whole[index : index + 1])
                group.commit([(index,)])
    return path


def reconstruction_values() -> dict[str, np.ndarray]:
    error = np.arange(1.0, 13.0).reshape(2, 2, len(METHODS))
    power = np.full((2, 2), 16.0)
    error[1, 1], power[1, 1] = np.nan, np.nan  # the last block puts out no text
    return {
        "output_error": error,
        "output_power": power,
        "loss": np.float32([[3.0, 2.0, 1.5], [5.0, 4.0, np.nan]]),
        "rounding_loss": np.float32([[0.0, 0.5, 0.1], [0.0, 0.25, np.nan]]),
        "iterations": np.array([30, 20]),
        "seconds": np.array([1.5, 2.5]),
    }
