"""What collecting and caching cost beside the bare forward passes of the same model.

python -m benchmarks.live              the reference model with either BLAS, and a wide one
                                       (hidden 1536, f32)
python -m benchmarks.live --commands   `collect` and `cache` of the reference model alone
python -m benchmarks.live --full-size  one forward of SD3-Medium's size with random weights:
                                       about 9 GB of memory, 5 GB of disk and some minutes
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.machine.blas import CHOICE, load_blas
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_inputs
from taqstore.pipelines.models.load import LoadedModel, Prompt, load_pipeline
from taqstore.pipelines.models.reducers import default_reducer
from taqstore.pipelines.models.sampling import Schedule, make_schedule
from taqstore.pipelines.models.table import MODELS, ModelRow
from taqstore.pipelines.run.trajectories import load_model_of, read_trajectories

from taqstore.names import SITES
from taqstore.run.mode import Mode
from taqstore.statistics.observation import MANTISSA_BITS
from taqstore.testing.checkpoint import SD3_MEDIUM, MMDiTShape, make_checkpoint

WIDE = MMDiTShape(hidden=1536, blocks=2, resolution=64, pooled=64, text=64, frequencies=64)
TOKENS = 154
LIMIT = 1.35
# Of the reference model: enough that opening and closing groups decides nothing.
IMAGES, STEPS = 8, 28


def wide_config() -> Any:
    return config_of(WIDE)


def sd3_config() -> Any:
    return config_of(SD3_MEDIUM)


def config_of(shape: MMDiTShape) -> Any:
    from diffusionkit.mlx.config import MMDiTConfig

    mx = backend().mx
    return MMDiTConfig(
        num_heads=shape.hidden // 64,
        depth_multimodal=shape.blocks,
        hidden_size_override=shape.hidden,
        max_latent_resolution=shape.resolution,
        pooled_text_embed_dim=shape.pooled,
        token_level_text_embed_dim=shape.text,
        frequency_embed_dim=shape.frequencies,
        dtype=mx.float32,
    )


def wide_text(text: str, cfg_weight: float = 7.5, negative_text: str = "") -> Any:
    return random_text(WIDE)


def sd3_text(text: str, cfg_weight: float = 7.5, negative_text: str = "") -> Any:
    return random_text(SD3_MEDIUM)


def random_text(shape: MMDiTShape) -> Any:
    rng, mx = np.random.default_rng(1), backend().mx
    tokens = rng.standard_normal((2, TOKENS, shape.text), np.float32)
    return mx.array(tokens), mx.array(rng.standard_normal((2, shape.pooled), np.float32))


def row(name: str, size: int) -> ModelRow:
    return ModelRow(
        name=name,
        hub=f"taqstore-benchmarks/{name}",
        config=f"benchmarks.live:{name}_config",
        text=f"benchmarks.live:{name}_text",
        dtype="float32",
        latent_size=(size, size),
    )


def ready(model: LoadedModel) -> tuple[Any, Schedule, Prompt]:
    """A latent, a schedule and a prompt to run forwards with."""
    schedule = make_schedule(model, 4)
    conditioning = model.encode_text("a handwritten seven", cfg_weight=model.row.cfg_weight)
    noise = np.random.default_rng(2).standard_normal((1, *model.row.latent_size, 16), np.float32)
    return backend().mx.array(noise), schedule, model.prepare(conditioning, schedule.timesteps)


def forwards(model: LoadedModel) -> tuple[Callable[[], None], Callable[[], None]]:
    """A bare forward, and the same under observation of all sites."""
    x, schedule, prompt = ready(model)
    reducer = default_reducer()

    def bare() -> None:
        run = model.denoise(x, schedule.timesteps[1], schedule.sigmas[1], prompt)
        backend().mx.eval(run)

    def take(inputs: Any) -> None:
        reducer([tensor for _, tensor in inputs], MANTISSA_BITS)

    def observed() -> None:
        with watching_inputs(model, SITES, take):
            bare()

    return bare, observed


def side_by_side(name: str, model: LoadedModel, repeats: int) -> None:
    """Alternate both, so that whatever else runs slows both; print medians and their ratio."""
    bare, observed = forwards(model)
    bare(), observed()
    times: dict[str, list[float]] = {"bare": [], "observed": []}
    for _ in range(repeats):
        for label, run in (("bare", bare), ("observed", observed)):
            started = time.perf_counter()
            run()
            times[label].append(time.perf_counter() - started)
    plain, watched = median(times["bare"]), median(times["observed"])
    verdict = "within" if watched / plain <= LIMIT else "above"
    print(f"{name}: forward {plain * 1e3:.1f} ms, observed {watched * 1e3:.1f} ms, "
          f"ratio {watched / plain:.2f} ({verdict} {LIMIT})")  # fmt: skip


def memory(name: str, checkpoint: Path) -> None:
    """Peak of observed forwards above that of bare ones, each in a process of its own."""
    peak = {}
    for label in ("bare", "observed"):
        code = f"from benchmarks.live import peak; peak({name!r}, {str(checkpoint)!r}, {label!r})"
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
        peak[label] = int(done.stdout)
    extra = peak["observed"] - peak["bare"]
    print(f"{name}: {extra / 1e6:+.0f} MB of peak memory by observing, "
          f"largest block's inputs {largest_block(WIDE, 32) / 1e6:.0f} MB")  # fmt: skip


def peak(name: str, checkpoint: str, label: str) -> None:
    """Print the largest resident set of a process that runs three forwards, in bytes."""
    MODELS["wide"] = row("wide", 32)
    bare, observed = forwards(load_pipeline(name, local_ckpt=checkpoint))
    for _ in range(3):
        bare() if label == "bare" else observed()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def largest_block(shape: MMDiTShape, latent: int) -> int:
    """Bytes of all linear inputs of one block, both streams and CFG rows, in float32."""
    tokens = (latent // 2) ** 2 + TOKENS
    return 2 * tokens * (3 + 4) * shape.hidden * 4


def commands(
    name: str, folder: Path, checkpoint: Path | None, *, images: int, steps: int, rounds: int = 3
) -> None:
    """Time the commands between first and last forward, beside bare forwards of the same loop.

    Each writes to a copy of the store with latents alone: nothing is deleted on the way. A run has
    to be long enough for what it costs once: opening groups, closing their flags.
    """
    prompts = folder / "prompts.txt"
    prompts.write_text("a handwritten seven")
    store = folder / f"{name}.zarr"
    request = Request(name, prompts, images, steps=steps, local_ckpt=checkpoint, dtype="float32")
    generate(store, request, mode=Mode(force=True))
    clock: dict[str, list[float]] = {"bare": [], "write": [], "cache": [], "collect": []}
    for number in range(rounds):
        clock["bare"].append(replayed(store, checkpoint))
        for label, run in (("cache", cache), ("collect", collect)):
            copy = Path(shutil.copytree(store, folder / f"{name}-{label}-{number}.zarr"))
            clock[label].append(timed(partial(run, copy, stride=1, local_ckpt=checkpoint)))
            if label == "cache":
                raw = sum(sizes(copy / "blocks"))
                clock["write"].append(timed_write(folder / "raw.bin", raw))
    kept = sum(sizes(copy / "activations")) / steps / images
    print(f"{name}, {images} images x {steps} steps: bare forwards {spread(clock['bare'])} s, "
          f"collect {spread(clock['collect'])} s ({ratio(clock, 'collect', 'bare')}), "
          f"cache {spread(clock['cache'])} s against forwards and a raw write of "
          f"{spread(clock['write'])} s ({ratio(clock, 'cache', 'bare', 'write')}); "
          f"statistics {kept / 1e6:.2f} MB per (image, step)")  # fmt: skip


def spread(times: list[float]) -> str:
    """Median of some seconds, and their least and most."""
    return f"{median(times):.2f} [{min(times):.2f}, {max(times):.2f}]"


def ratio(clock: dict[str, list[float]], label: str, *beside: str) -> str:
    """Median of the ratios of each round, and their least and most."""
    rows = zip(clock[label], *(clock[one] for one in beside), strict=True)
    return f"ratio {spread([mine / sum(others) for mine, *others in rows])}"


def replayed(store: Path, checkpoint: Path | None) -> float:
    """Seconds of the same forwards, from the first latent read to the last output."""
    found = read_trajectories(store, images=None, stride=1, model=None)
    model = load_model_of(found.run, local_ckpt=checkpoint)
    schedule = found.schedule(model)
    started = time.perf_counter()
    for image in found.images:
        prompt = found.prepare(model, image, schedule)
        for position, step in enumerate(found.steps):
            timestep, sigma = schedule.timesteps[position], schedule.sigmas[position]
            backend().mx.eval(
                model.denoise(found.latent(model, image, step), timestep, sigma, prompt)
            )
    return time.perf_counter() - started


def timed(run: Callable[..., object]) -> float:
    """Seconds from where a command has its model and groups to its end."""
    watch = _Watch()
    run(mode=Mode(progress=watch))
    return time.perf_counter() - watch.started


class _Watch:
    """Notes when a command has its model and groups."""

    started = 0.0

    def start(self, total: int) -> None:
        self.started = time.perf_counter()

    def advance(self, label: str, amount: int = 1) -> None:
        pass


def timed_write(path: Path, size: int) -> float:
    """Seconds to write and flush as many bytes in one file."""
    content = np.random.default_rng(3).bytes(size)
    started = time.perf_counter()
    with path.open("wb") as stream:
        stream.write(content)
        os.fsync(stream.fileno())
    return time.perf_counter() - started


def sizes(folder: Path) -> list[int]:
    return [f.stat().st_size for f in folder.rglob("*") if f.is_file()]


def full_size(folder: Path, size: int) -> None:
    """One (image, step) of SD3-Medium's size through `generate`, `cache` and `collect`."""
    MODELS["sd3"] = row("sd3", size)
    commands(
        "sd3",
        folder,
        make_checkpoint(folder / "sd3.safetensors", shape=SD3_MEDIUM),
        images=1,
        steps=1,
        rounds=1,
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"sd3: peak resident set {peak:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full-size", action="store_true", help="one forward of SD3-Medium's size")
    parser.add_argument("--latent", type=int, default=32, help="latent size of --full-size")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--commands", action="store_true", help="the reference model's alone")
    options = parser.parse_args()
    print(f"MLX multiplies with {load_blas().name}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.full_size:
            full_size(folder, options.latent)
            return
        if options.commands:
            commands("reference", folder, None, images=IMAGES, steps=STEPS)
            return
        MODELS["wide"] = row("wide", 32)
        checkpoint = make_checkpoint(folder / "wide.safetensors", shape=WIDE)
        reference, wide = load_pipeline("reference"), load_pipeline("wide", local_ckpt=checkpoint)
        side_by_side("reference", reference, options.repeats * 4)
        side_by_side("wide", wide, options.repeats)
        memory("wide", checkpoint)
        commands("reference", folder, None, images=IMAGES, steps=STEPS)
        commands("wide", folder, checkpoint, images=3, steps=2)
    with_own_blas()


def with_own_blas() -> None:
    """The reference model's commands once more where MLX multiplies with what it brings."""
    words = [sys.executable, "-m", "benchmarks.live", "--commands"]
    subprocess.run(words, check=True, env={**os.environ, CHOICE: "mlx"})


if __name__ == "__main__":
    main()
