"""Expected error from histograms beside the error measured on real activations.

python -m benchmarks.prediction [--images 8] [--steps 16]

Latents of the reference model are collected from the first half of the images. Every linear input
of both halves is then captured again, quantized with the ranges chosen from the store, and its mean
squared error compared with what the analysis `error` said, for every layer and step.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from taqstore.pipelines.collect.collect import collect
from taqstore.pipelines.generate import Request, generate
from taqstore.pipelines.models.backend import backend
from taqstore.pipelines.models.capture import watching_inputs
from taqstore.pipelines.models.load import to_numpy
from taqstore.pipelines.models.reference import digit_prompts
from taqstore.pipelines.run.trajectories import load_model_of, read_trajectories

from taqstore.analysis import error
from taqstore.analysis.ranges.rules import Rule
from taqstore.names import ACTIVATIONS, SITES
from taqstore.quantization.quantizer import Quantizer, integer_range
from taqstore.store.reader import open_store

BITS = (8, 6, 4)
RULES: tuple[Rule, ...] = ("absmax", "mse", "percentile")
Key = tuple[str, str]  # site and layer


def make(folder: Path, images: int, steps: int) -> Path:
    """A store whose statistics are of the first half of the images."""
    prompts, store = folder / "prompts.txt", folder / "run.zarr"
    prompts.write_text("\n".join(digit_prompts(images, seed=4)), encoding="utf-8")
    generate(store, Request("reference", prompts, images, steps=steps))
    collect(store, images=range(images // 2), stride=1)
    return store


def captured(store: Path, images: Sequence[int]) -> Iterator[tuple[int, Key, np.ndarray]]:
    """(position of the step, linear input, its values in a row) of every forward."""
    found = read_trajectories(store, images=images, stride=1, model=None)
    model = load_model_of(found.run, local_ckpt=None)
    schedule, seen = found.schedule(model), list[tuple[Key, np.ndarray]]()

    def take(inputs: Sequence[tuple[object, object]]) -> None:
        for linear, tensor in inputs:
            key = (getattr(linear, "site"), getattr(linear, "layer"))  # noqa: B009
            seen.append((key, np.array(to_numpy(tensor), np.float64).ravel()))

    with watching_inputs(model, SITES, take):
        for image in images:
            prompt = found.prepare(model, image, schedule)
            for position, step in enumerate(found.steps):
                x = found.latent(model, image, step)
                timestep, sigma = schedule.timesteps[position], schedule.sigmas[position]
                backend().mx.eval(model.denoise(x, timestep, sigma, prompt))
                yield from ((position, key, values) for key, values in seen)
                seen.clear()


def quantizers(result: xr.Dataset, bits: int) -> Quantizer:
    """Those of a result of `error`, (step, layer)."""
    low, high = integer_range(bits)
    step, zero = (result[n].transpose("step", "layer").values for n in ("step_size", "zero_point"))
    return Quantizer(step, zero, low, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = make(Path(name), given.images, given.steps)
        groups = open_store(store)
        expected = {
            (bits, rule): {
                site: error(groups[f"{ACTIVATIONS}/{site}"], bits=bits, clip=rule).compute()
                for site in SITES
            }
            for bits in BITS
            for rule in RULES
        }
        half = given.images // 2
        for label, images in (("the same", range(half)), ("other", range(half, given.images))):
            report(label, expected, list(captured(store, list(images))))


def report(
    label: str,
    expected: dict[tuple[int, Rule], dict[str, xr.Dataset]],
    tensors: list[tuple[int, Key, np.ndarray]],
) -> None:
    """Print correlation and spread of measured over expected error, by width and rule."""
    for (bits, rule), sites in expected.items():
        ratios, pairs = ratios_of(sites, bits, tensors)
        low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
        spread = f"5 % {low:.3f}, 95 % {high:.3f}, extremes {ratios.min():.3f} {ratios.max():.3f}"
        correlation = np.corrcoef(np.log(pairs))[0, 1]
        print(f"{label} images, {bits} bits, {rule}: {ratios.size} layers x steps, "
              f"correlation of logs {correlation:.5f}, "
              f"measured / expected {middle:.3f} ({spread})")  # fmt: skip


def ratios_of(
    sites: dict[str, xr.Dataset], bits: int, tensors: list[tuple[int, Key, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Measured over expected error, and both, ``(2, layer and step)``."""
    made = {site: quantizers(result, bits) for site, result in sites.items()}
    index = {s: {str(n): i for i, n in enumerate(r["layer"].values)} for s, r in sites.items()}
    sums: dict[tuple[int, Key], tuple[float, int]] = {}
    for position, (site, layer), values in tensors:
        quantizer = made[site][position, index[site][layer]]
        wrong = np.square(values - quantizer.fake_quantize(values)).sum()
        total, count = sums.get((position, (site, layer)), (0.0, 0))
        sums[position, (site, layer)] = (total + float(wrong), count + values.size)
    told = {site: r["error"].transpose("step", "layer").values for site, r in sites.items()}
    measured = np.array([total / count for total, count in sums.values()])
    foretold = np.array([told[s][step, index[s][layer]] for step, (s, layer) in sums])
    return measured / foretold, np.stack([measured, foretold])


if __name__ == "__main__":
    main()
