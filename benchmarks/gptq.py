"""`python -m benchmarks.gptq`: weights by GPTQ beside `mx.quantize`'s, on the reference model.

Linears of blocks at 4 bits, groups of 64, float32. Second moments from 8 prompts at every step;
judged by the guided output on the trajectories of others, which were not observed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import process_time
from typing import Any

import numpy as np
from taqstore.pipelines.models.capture import watching_inputs
from taqstore.pipelines.models.inputs import Input
from taqstore.pipelines.models.load import LoadedModel, load_pipeline
from taqstore.pipelines.models.reference.data import LEANS, NUMERALS, STROKES
from taqstore.pipelines.models.sampling import make_schedule, trajectory

from taqstore.names import SITES
from taqstore.quantization.gptq import gptq, prepare
from taqstore.quantization.integer_grid import IntegerGrid, affine_grid, symmetric_grid
from taqstore.statistics.second_moment import SecondMoment

OBSERVED, JUDGED, STEPS, SIZE, BITS = 8, 12, 28, 64, 4
BLOCKS = (None, 256, 64, 16, 1)
Key = tuple[str, str]


@dataclass(frozen=True)
class Judge:
    """Guided outputs of the model as it is, on trajectories of its own."""

    forwards: list[Callable[[], np.ndarray]]
    plain: np.ndarray

    @classmethod
    def of(cls, forwards: list[Callable[[], np.ndarray]]) -> Judge:
        return cls(forwards, np.stack([run() for run in forwards]))

    def error(self) -> float:
        """Relative RMS of the guided output as the model now is."""
        found = np.stack([run() for run in self.forwards])
        return float(np.linalg.norm(found - self.plain) / np.linalg.norm(self.plain))


def prompts() -> list[str]:
    rng = np.random.default_rng(5)
    numbers = [*range(OBSERVED), *((OBSERVED - 1 + i) % 10 for i in range(JUDGED))]
    return [
        ", ".join(filter(None, (f"a handwritten {NUMERALS[i]}", *styles)))
        for i in numbers
        for styles in [(rng.choice(STROKES), rng.choice(LEANS))]
    ]


def observe(model: LoadedModel) -> tuple[dict[Key, np.ndarray], Judge]:
    """Second moments of the observed prompts, and what the others give."""
    import mlx.core as mx

    schedule, size = make_schedule(model, STEPS), model.row.latent_size
    sums = {(x.layer, x.site): SecondMoment(x.channels) for x in _inputs(model)}
    forwards: list[Callable[[], np.ndarray]] = []

    def take(seen: Any) -> None:
        for one, tensor in seen:
            sums[one.layer, one.site].add(np.array(tensor))

    def forward(x: Any, step: int, prompt: Any) -> np.ndarray:
        found = model.denoise(x, schedule.timesteps[step], schedule.sigmas[step], prompt)
        mx.eval(found)
        return np.array(found, np.float64)

    for seed, text in enumerate(prompts()):
        prompt = model.prepare(
            model.encode_text(text, cfg_weight=model.row.cfg_weight), schedule.timesteps
        )
        run = trajectory(model, prompt, schedule, seed=seed, latent_size=size)
        if seed < OBSERVED:
            with watching_inputs(model, SITES, take):
                list(run)
            continue
        for step, x in enumerate(list(run)[:STEPS]):
            forwards.append(partial(forward, x, step, prompt))
    return {key: one.blocks()[0] for key, one in sums.items()}, Judge.of(forwards)


def _inputs(model: LoadedModel) -> list[Input]:
    return [one for one in model.inputs() if one.site in SITES]


def blocks_of(moment: np.ndarray, size: int | None) -> np.ndarray:
    """Blocks on the diagonal; sizes here divide."""
    if size is None or size >= len(moment):
        return moment
    return np.stack([moment[i : i + size, i : i + size] for i in range(0, len(moment), size)])


def judged(model: LoadedModel, judge: Judge, weights: Mapping[str, np.ndarray]) -> float:
    import mlx.core as mx

    readers = [reader for one in _inputs(model) for reader in one.readers]
    kept = [reader.module.weight for reader in readers]
    for reader in readers:
        reader.module.weight = mx.array(weights[reader.path])
    error = judge.error()
    for reader, weight in zip(readers, kept, strict=True):
        reader.module.weight = weight
    return error


def main() -> None:
    """Print the table."""
    import mlx.core as mx

    model = load_pipeline("reference", dtype="float32")
    moments, judge = observe(model)
    every = [(one, reader) for one in _inputs(model) for reader in one.readers]
    peer = {
        reader.path: np.array(
            mx.dequantize(
                *mx.quantize(mx.array(reader.matrix()), group_size=SIZE, bits=BITS),
                group_size=SIZE,
                bits=BITS,
            )
        )
        for _, reader in every
    }
    base = judged(model, judge, peer)
    print(f"{'grid':10} {'moments':>8} {'rel. RMS':>9} {'ratio':>6} {'layers':>7} {'CPU s':>6}")
    print(f"{'mx.quantize':19} {base:9.5f} {1:6.3f}")
    grids: dict[str, Callable[[np.ndarray], IntegerGrid]] = {
        "affine": lambda w: affine_grid(w, bits=BITS, group_size=SIZE, step_dtype="float16"),
        "symmetric": lambda w: symmetric_grid(w, bits=BITS, group_size=SIZE, step_dtype="float16"),
    }
    for name, make in grids.items():
        for size in BLOCKS:
            began, ratios, weights = process_time(), [], {}
            for one in _inputs(model):
                known = prepare(blocks_of(moments[one.layer, one.site], size))
                for reader in one.readers:
                    weight = reader.matrix()
                    found = gptq(weight, known, make(weight).nearest)
                    ratios.append(found.output_error.sum() / found.nearest_error.sum())
                    weights[reader.path] = found.weights
            spent = process_time() - began
            error, told = judged(model, judge, weights), "full" if size is None else str(size)
            print(
                f"{name:10} {told:>8} {error:9.5f} {error / base:6.3f} "
                f"{np.mean(ratios):7.3f} {spent:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
