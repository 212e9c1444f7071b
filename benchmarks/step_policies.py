"""Which first and last steps to protect: what `analyze policy` says, beside every pair run.

By hand, not a row of the benchmarks: ``python -m benchmarks.step_policies STORE --format a4-static
--json FILE``. A policy leaves the inputs of its first and last steps as they are, and quantizes
those between by `--format`. Sensitivities are of images whose numbers follow the store's, the truth
of others that follow these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from taqstore.pipelines.evaluate.linears_of_variant import Planner
from taqstore.pipelines.evaluate.variants import Variant
from taqstore.pipelines.judge.asked import held_out_prompts
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.load import LoadedModel, to_numpy
from taqstore.pipelines.models.quantized.quantized_model import LinearPlan, quantize
from taqstore.pipelines.models.sampling import Schedule, restored_schedule
from taqstore.pipelines.run.trajectories import load_model_of, read_trajectories

from taqstore.kinds.quantized_linears import InputQuantizer
from taqstore.kinds.weights import time_group_of
from taqstore.store.reader import open_store

Array = np.ndarray


class Sampler:
    """The model of a store, sampled with other plans at every step."""

    def __init__(self, path: Path, variant: Variant, *, images: int) -> None:
        self.store = open_store(path)
        found = read_trajectories(self.store, images=None, stride=1, model=None)
        use = replace(found.use, seeds=found.seeds)
        self.model = load_model_of(found.run, local_ckpt=None, use=use)
        self.schedule: Schedule = restored_schedule(
            self.model, found.latents["sigma"].values, found.latents["timestep"].values
        )
        self.found = found
        seed = int(found.latents["seed"].values.max()) + 1
        self.seeds = list(range(seed, seed + images))
        self.texts = held_out_prompts(self.model.row, images, (), seed=seed)
        self.weights = variant.weights
        self.plans = Planner(self.model, self.store).plans(variant)
        self.quantized = self.variant(range(self.schedule.steps))
        plain = {name: LinearPlan(plan.weight) for name, plan in self.plans.items()}
        self.between = self.model if variant.weights == "float" else quantize(self.model, plain)

    def variant(self, steps: Sequence[int] | range) -> LoadedModel:
        """The model with inputs quantized at these steps alone."""
        sigmas = self.schedule.arrays()[0]
        lower = np.append(sigmas[1:-1], 0).astype(np.float32)
        plans = {n: replace(p, input=_at(p.input, steps, sigmas, lower)) for n, p in
                 self.plans.items()}  # fmt: skip
        return quantize(self.model, plans)

    def prompt(self, image: int) -> Any:
        weight = float(self.found.latents["cfg_weight"].values[0])
        text = self.model.encode_text(
            self.texts[image], cfg_weight=weight, negative=self.found.run["negative_prompt"]
        )
        return self.model.prepare(text, self.schedule.timesteps)

    def noise(self, image: int) -> Any:
        height, width, _ = self.found.latent_shape
        size = (height, width)
        return self.model.noise(self.schedule.sigmas, seed=self.seeds[image], latent_size=size)

    def run(self, x: Any, prompt: Any, models: Sequence[LoadedModel], start: int = 0) -> list[Any]:
        """Latents from `start` on, by the model of each step."""
        mx, found = backend().mx, [x]
        for step in range(start, self.schedule.steps):
            sigma = self.schedule.sigmas[step]
            denoised = models[step].denoise(x, self.schedule.timesteps[step], sigma, prompt)
            x = self.model.advance(x, denoised, sigma, self.schedule.sigmas[step + 1])
            mx.eval(x)
            found.append(x)
        return found


def _at(
    found: InputQuantizer | None, steps: Sequence[int] | range, sigmas: Array, lower: Array
) -> InputQuantizer | None:
    if found is None:
        return None
    group = [int(time_group_of(float(sigma), found.sigma_lower)) for sigma in sigmas[:-1]]
    bits = np.array([found.bits[g] if i in set(steps) else 0 for i, g in enumerate(group)], np.int8)
    return InputQuantizer(found.step[group], found.zero_point[group], bits, lower)


def sensitivities(sampler: Sampler, images: Sequence[int]) -> tuple[Array, Array]:
    """Deltas (image, step, value) of one quantized step each, and final latents (image, value)."""
    steps, deltas, finals = sampler.schedule.steps, [], []
    for image in images:
        prompt = sampler.prompt(image)
        plain = sampler.run(sampler.noise(image), prompt, [sampler.between] * steps)
        finals.append(_flat(plain[-1]))
        row = []
        for step in range(steps):
            models = [sampler.between] * steps
            models[step] = sampler.quantized
            row.append(_flat(sampler.run(plain[step], prompt, models, step)[-1]) - finals[-1])
        deltas.append(row)
        print(f"sensitivities of image {image}", flush=True)
    return np.array(deltas), np.array(finals)


def truth(
    sampler: Sampler, images: Sequence[int], pairs: Sequence[tuple[int, int]]
) -> tuple[Array, Array]:
    """Relative error of the final latent (image, pair), and error vectors (image, pair, value)."""
    steps, rows, errors = sampler.schedule.steps, [], []
    for image in images:
        prompt, noise = sampler.prompt(image), sampler.noise(image)
        plain = _flat(sampler.run(noise, prompt, [sampler.between] * steps)[-1])
        finals = []
        for first in sorted({first for first, _ in pairs}):
            models = [sampler.between] * first + [sampler.quantized] * (steps - first)
            start = sampler.run(noise, prompt, models)
            for last in [last for f, last in pairs if f == first]:
                ends = models[: steps - last] + [sampler.between] * last
                finals.append(
                    _flat(sampler.run(start[steps - last], prompt, ends, steps - last)[-1])
                )
        rows.append(np.linalg.norm(np.array(finals) - plain, axis=-1) / np.linalg.norm(plain))
        errors.append(np.array(finals) - plain)
        print(f"truth of image {image}", flush=True)
    return np.array(rows), np.array(errors)


def predicted(deltas: Array, finals: Array, pairs: Sequence[tuple[int, int]]) -> Array:
    """Mean over images of |sum of deltas of unprotected steps| / |final|, for every pair."""
    steps = deltas.shape[1]
    norm = np.linalg.norm(finals, axis=-1)
    total = [np.linalg.norm(deltas[:, f : steps - e].sum(axis=1), axis=-1) / norm for f, e in pairs]
    mean: Array = np.mean(total, axis=-1)
    return mean


def _flat(x: Any) -> Array:
    return np.array(to_numpy(x), np.float64).ravel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--format", default="a4-static", help="of the inputs between")
    parser.add_argument("--weights", default="float", help="float, or a format or set of weights")
    parser.add_argument("--most", type=int, default=6)
    parser.add_argument("--measured", type=int, default=8, help="images of sensitivities")
    parser.add_argument("--held-out", type=int, default=8, help="images of the truth")
    parser.add_argument("--arrays", type=Path, help="keep deltas and errors, .npz")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    variant = Variant.parse(f"{asked.weights}/{asked.format}")
    sampler = Sampler(asked.store, variant, images=asked.measured + asked.held_out)
    pairs = [(f, e) for f, e in product(range(asked.most + 1), repeat=2)]
    deltas, finals = sensitivities(sampler, range(asked.measured))
    true, errors = truth(sampler, range(asked.measured, len(sampler.seeds)), pairs)
    if asked.arrays:
        np.savez(asked.arrays, deltas=deltas, finals=finals, truth=true, errors=errors, pairs=pairs)
    report(pairs, predicted(deltas, finals, pairs), true.mean(axis=0), asked.json)


def report(pairs: Sequence[tuple[int, int]], guess: Array, true: Array, path: Path | None) -> None:
    """By number of protected steps: ours, half and half, the best, and the rank of ours."""
    print("protected  ours        error   half    error   best    error   rank  of")
    rows = []
    for count in range(2 * max(f for f, _ in pairs) + 1):
        same = [i for i, pair in enumerate(pairs) if sum(pair) == count]
        half = min(same, key=lambda i: (abs(pairs[i][0] - pairs[i][1]), -pairs[i][0]))
        ours = min(same, key=lambda i: guess[i])
        best = min(same, key=lambda i: true[i])
        rank = 1 + sum(true[i] < true[ours] for i in same)
        rows.append({
            "protected": count, "ours": pairs[ours], "ours_error": true[ours],
            "half": pairs[half], "half_error": true[half], "best": pairs[best],
            "best_error": true[best], "rank": rank, "of": len(same),
        })  # fmt: skip
        line = f"{count:9d}  {pairs[ours]!s:8} {true[ours]:9.5f}  {pairs[half]!s:7}"
        line += f"{true[half]:8.5f}  {pairs[best]!s:7}{true[best]:8.5f}  {rank:4d}  {len(same):2d}"
        print(line)
    if path:
        document = {"rows": rows, "pairs": pairs, "predicted": guess, "truth": true}
        path.write_text(json.dumps(document, indent=1, default=lambda x: x.tolist()), "utf-8")


if __name__ == "__main__":
    main()
