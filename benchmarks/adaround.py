"""What an iteration of AdaRound costs beside a bare forward and backward pass of the same block.

The bare backward pass is that of a block inside a model: gradients of its weights and of its
inputs. Steps of activations are learned by gradients of what linears read, so A8 takes all of them;
`weights alone` leaves out those that weights do not need, three products of 36.

python -m benchmarks.adaround              the reference model, and a wide one (hidden 1536, f32)
python -m benchmarks.adaround --only wide  one of them
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from taqstore.pipelines.adaround.activation_inputs import ActivationPlan, read_inputs
from taqstore.pipelines.adaround.one_block import BlockWork
from taqstore.pipelines.cache import cache
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.machine.blas import load_blas
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.layers import blocks
from taqstore.pipelines.models.load import load_pipeline
from taqstore.pipelines.models.rounding import Minibatch, Settings
from taqstore.pipelines.models.table import MODELS

from taqstore import open_store
from taqstore.testing.checkpoint import make_checkpoint

from .live import WIDE, row

LIMIT = 1.15
BLOCK = 0
# Images and steps make the samples; all of the reference model's, so that they are one batch.
SIZES = {"reference": (4, 8, 32), "wide": (2, 4, 8)}


def store_of(name: str, folder: Path, checkpoint: Path | None) -> Path:
    """A run with the block's streams and its observed inputs."""
    images, steps, _ = SIZES[name]
    prompts, store = folder / "prompts.txt", folder / f"{name}.zarr"
    prompts.write_text("a handwritten seven")
    generate(
        store, Request(name, prompts, images, steps=steps, local_ckpt=checkpoint, dtype="float32")
    )
    collect(store, stride=1, local_ckpt=checkpoint)
    cache(store, stride=1, chosen=[f"mm{BLOCK}"], local_ckpt=checkpoint)
    return store


def work_of(name: str, store: Path, checkpoint: Path | None, bits: int) -> BlockWork:
    """The work on the block, its rounding term on from the first iteration."""
    model = load_pipeline(name, local_ckpt=checkpoint, dtype="float32")
    opened = open_store(store, chunks=None)
    settings = Settings(batch_size=SIZES[name][2], activation_bits=bits, warmup=0.0)
    inputs = read_inputs(open_store(store), ActivationPlan(), bits=bits)
    return BlockWork.open(
        opened, model, blocks(model.mmdit)[BLOCK], settings, inputs, given={}, cached=None
    )


def bare(work: BlockWork, batch: Minibatch, *, alone: bool = False) -> Callable[[], None]:
    """Forward and backward of the block as it is, in float32 as AdaRound runs it."""
    mx, run = backend().mx, work.optimiser.run
    inputs = {name: x.astype(mx.float32) for name, x in batch.inputs.items()}
    mx.eval(inputs)
    modules = [module for _, module in run.linears]
    weights = [module.weight for module in modules]

    def loss(given: list[Any], streams: dict[str, Any]) -> Any:
        for module, weight in zip(modules, given, strict=True):
            module.weight = weight
        outputs = run.outputs(streams, run.modulation(batch.pooled, batch.timestep))
        squares = (mx.square(outputs[name] - x).sum() for name, x in batch.targets.items())
        return sum(squares) / batch.rows

    slope = mx.value_and_grad(loss, argnums=(0,) if alone else (0, 1))

    def once() -> None:
        mx.eval(slope(weights, inputs))
        for module, weight in zip(modules, weights, strict=True):
            module.weight = weight

    return once


def iteration(work: BlockWork, batches: Iterator[Minibatch]) -> float:
    """Read a minibatch and learn from it."""
    return float(work.optimiser.learn(next(batches)))


def measure(name: str, store: Path, checkpoint: Path | None, rounds: int) -> None:
    """In turn the bare passes, iterations with inputs of 8 bits, and with inputs as they are."""
    works = {f"A{bits}": work_of(name, store, checkpoint, bits) for bits in (8, 0)}
    with closing(works["A8"]._minibatches(0)) as first:
        batch = next(first)
    runs: dict[str, Callable[[], Any]] = {
        "bare": bare(works["A8"], batch),
        "bare, weights alone": bare(works["A8"], batch, alone=True),
    }
    batches = {label: work._minibatches(0) for label, work in works.items()}
    for label, work in works.items():
        runs[label] = partial(iteration, work, batches[label])
    seconds: dict[str, list[tuple[float, float]]] = {label: [] for label in runs}
    for number in range(rounds + 1):
        for label, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                seconds[label].append((time.perf_counter() - wall, time.process_time() - cpu))
    for one in batches.values():
        one.close()
    for label, times in seconds.items():
        print(told(name, label, times, seconds["bare"]), flush=True)


def told(
    name: str, label: str, times: list[tuple[float, float]], floor: list[tuple[float, float]]
) -> str:
    """Medians of a contender, and of its ratios to the bare passes of the same round."""
    wall, cpu = (median(column) for column in zip(*times, strict=True))
    text = f"{name}: {label} {wall * 1e3:.1f} ms ({cpu * 1e3:.1f} CPU)"
    if label == "bare":
        return text
    pairs = list(zip(times, floor, strict=True))
    ratios = [median(a[i] / b[i] for a, b in pairs) for i in (0, 1)]
    verdict = "" if label != "A8" else f" ({'within' if ratios[0] <= LIMIT else 'above'} {LIMIT})"
    return f"{text}, {ratios[0]:.2f} of the bare passes{verdict}, {ratios[1]:.2f} of their CPU time"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print(f"MLX multiplies with {load_blas().name}.")
    MODELS["wide"] = row("wide", 16)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in SIZES if options.only is None else [options.only]:
            checkpoint = None
            if name == "wide":
                checkpoint = make_checkpoint(folder / "wide.safetensors", shape=WIDE)
            measure(name, store_of(name, folder, checkpoint), checkpoint, options.rounds)


if __name__ == "__main__":
    main()
