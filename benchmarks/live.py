"""What collecting and caching cost beside the bare forward passes of the same model.

python -m benchmarks.live              the reference model, and a wide one (hidden 1536, f32)
python -m benchmarks.live --full-size  one forward of SD3-Medium's size with random weights:
                                       about 9 GB of memory, 5 GB of disk and some minutes
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipelines.cache import cache
from pipelines.collect import collect
from pipelines.generate import Request, generate
from pipelines.models.backend import backend
from pipelines.models.capture import watching_inputs
from pipelines.models.load import LoadedModel, Prompt, load_pipeline
from pipelines.models.reduce import default_reducer
from pipelines.models.sampling import Schedule, make_schedule
from pipelines.models.table import MODELS, ModelRow
from taqstore.names import SITES
from taqstore.statistics import MANTISSA_BITS
from taqstore.testing.checkpoint import SD3_MEDIUM, MMDiTShape, make_checkpoint

WIDE = MMDiTShape(hidden=1536, blocks=2, resolution=64, pooled=64, text=64, frequencies=64)
TOKENS = 154
LIMIT = 1.35


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

    def take(layer: str, site: str, tensor: Any) -> None:
        reducer(tensor, MANTISSA_BITS)

    def observed() -> None:
        with watching_inputs(model.mmdit, SITES, take):
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


@contextmanager
def sampled_peak() -> Iterator[list[int]]:
    """Largest resident set above the start, in bytes, sampled every 5 ms; Linux only."""
    pages, peak, stop = os.sysconf("SC_PAGE_SIZE"), [0], threading.Event()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * pages

    start = resident()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], resident() - start)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def memory(name: str, model: LoadedModel) -> None:
    """Peak of an observed forward above that of a bare one, and one block's inputs."""
    bare, observed = forwards(model)
    bare()
    with sampled_peak() as plain:
        bare()
    with sampled_peak() as watched:
        observed()
    print(f"{name}: peak memory +{plain[0] / 1e6:.0f} MB bare, +{watched[0] / 1e6:.0f} MB observed")


def commands(name: str, folder: Path, checkpoint: Path | None, steps: int) -> None:
    """Time the commands themselves, and the bytes that `collect` leaves per (image, step)."""
    prompts = folder / "prompts.txt"
    prompts.write_text("a handwritten seven")
    store = folder / f"{name}.zarr"
    request = Request(name, prompts, 1, steps=steps, local_ckpt=checkpoint, dtype="float32")
    clock = {}
    runs: dict[str, Callable[[], object]] = {
        "generate": lambda: generate(store, request),
        "cache": lambda: cache(store, stride=1, local_ckpt=checkpoint),
        "collect": lambda: collect(store, stride=1, local_ckpt=checkpoint),
    }
    for label, run in runs.items():
        started = time.perf_counter()
        run()
        clock[label] = time.perf_counter() - started
    kept = sum(f.stat().st_size for f in (store / "activations").rglob("*") if f.is_file())
    print(f"{name}: " + ", ".join(f"{label} {s:.1f} s" for label, s in clock.items())
          + f", {kept / steps / 1e6:.2f} MB per (image, step)")  # fmt: skip


def full_size(folder: Path, size: int) -> None:
    """One (image, step) of SD3-Medium's size through `generate`, `cache` and `collect`."""
    MODELS["sd3"] = row("sd3", size)
    commands("sd3", folder, make_checkpoint(folder / "sd3.safetensors", shape=SD3_MEDIUM), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"sd3: peak resident set {peak:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full-size", action="store_true", help="one forward of SD3-Medium's size")
    parser.add_argument("--latent", type=int, default=32, help="latent size of --full-size")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.full_size:
            full_size(folder, options.latent)
            return
        MODELS["wide"] = row("wide", 32)
        checkpoint = make_checkpoint(folder / "wide.safetensors", shape=WIDE)
        reference, wide = load_pipeline("reference"), load_pipeline("wide", local_ckpt=checkpoint)
        side_by_side("reference", reference, options.repeats * 4)
        side_by_side("wide", wide, options.repeats)
        memory("wide", wide)
        commands("reference", folder, None, 8)
        commands("wide", folder, checkpoint, 2)


if __name__ == "__main__":
    main()
