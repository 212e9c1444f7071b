"""Training of the reference model: rectified flow on handwritten digits, on the CPU.

`python -m taqstore.pipelines.models.reference train FOLDER` starts, or goes on where FOLDER stands.
Every step draws its own random numbers from (seed, step): an interrupted run and a whole one see
the same batches.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from statistics import NormalDist
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taqstore.errors import TaqError, problem

from ..backend import backend
from ..layers import modulated
from .data import Digits, real_digits, training_batch
from .encoder import embed
from .latent import encode
from .model import Tensor, config, to_sd3

STATE = "state.safetensors"
WEIGHTS = "reference.safetensors"

Floats = NDArray[np.float32]
OnStep = Callable[[int, float], None]


@dataclass(frozen=True)
class Recipe:
    """What a run is made of.

    Attributes
    ----------
    peak
        Largest learning rate of AdamW, after `warmup` steps; a cosine takes it to zero.
    averaging
        Decay of the moving average of the weights, which is what is kept.
    dropped
        Share of empty prompts.
    shift
        Shift of the noise levels, the one that sampling uses (SD3: 3).
    every
        Steps between saved states.
    """

    steps: int = 2000
    batch: int = 64
    seed: int = 0
    peak: float = 2e-3
    warmup: int = 60
    averaging: float = 0.995
    clip: float = 1.0
    dropped: float = 0.1
    shift: float = 3.0
    every: int = 50

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Batch:
    """One minibatch: what the model sees and what it should say.

    Attributes
    ----------
    noisy, velocity
        (B, 8, 8, 16): (1 - sigma) x + sigma noise, and noise - x.
    tokens, pooled
        (B, 12, 128) and (B, 128), see `encoder.embed`.
    sigma
        (B,) noise levels between 0 and 1.
    """

    noisy: Floats
    velocity: Floats
    tokens: Floats
    pooled: Floats
    sigma: Floats


def draw_batch(digits: Digits, recipe: Recipe, step: int) -> Batch:
    """The minibatch of a step: a function of the recipe's seed and the step."""
    rng = np.random.default_rng([recipe.seed, step])
    pictures, prompts = training_batch(digits, rng, size=recipe.batch, dropped=recipe.dropped)
    clean = encode(pictures)
    noise = rng.standard_normal(clean.shape, dtype=np.float32)
    sigma = noise_levels(rng, recipe.batch, shift=recipe.shift)
    at = sigma[:, None, None, None]
    return Batch((1 - at) * clean + at * noise, noise - clean, *embed(prompts), sigma)


def noise_levels(rng: np.random.Generator, count: int, *, shift: float) -> Floats:
    """Shifted logit-normal noise levels (Esser et al. 2024, sections 3.1 and 5.3.2).

    Drawn one per stratum of the normal distribution: the mean over a small batch varies less.
    """
    strata = (np.arange(count) + rng.random(count)) / count
    normal = NormalDist()
    logits = np.array([normal.inv_cdf(p) for p in np.clip(strata, 1e-6, 1 - 1e-6)])
    level = 1 / (1 + np.exp(-logits))
    return np.asarray(shift * level / (1 + (shift - 1) * level), np.float32)


@dataclass(frozen=True)
class Run:
    """What a run has done: its recipe, the loss of each step, seconds spent in steps."""

    recipe: Recipe
    losses: list[float]
    seconds: float


def read_run(folder: Path) -> tuple[Run, dict[str, Tensor]]:
    """What `Trainer.save` wrote: the run and its arrays.

    Raises
    ------
    TaqError
        The folder holds no run.
    """
    path = folder / STATE
    if not path.is_file():
        raise TaqError(problem("holds no training run", where=str(folder), remedy="train first"))
    arrays, metadata = backend().mx.load(str(path), return_metadata=True)
    run = json.loads(metadata["run"])
    return Run(Recipe(**run["recipe"]), run["losses"], run["seconds"]), arrays


class Trainer:
    """The model, its optimizer and its averaged weights at some step of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        mx, tree_map = backend().mx, backend().utils.tree_map
        nn, optimizers = import_module("mlx.nn"), import_module("mlx.optimizers")
        self.recipe, self.step = recipe, 0
        self.losses: list[float] = []
        self.seconds = 0.0
        self.digits, _ = real_digits()
        mx.random.seed(recipe.seed)
        self.mmdit = _initial()
        self.average = tree_map(mx.array, self.mmdit.parameters())
        self.optimizer = optimizers.AdamW(recipe.peak, betas=[0.9, 0.99], weight_decay=0.01)
        self.optimizer.init(self.mmdit.trainable_parameters())
        self._gradient = nn.value_and_grad(self.mmdit, velocity_loss)

    def advance(self) -> float:
        """Take one step; return its loss."""
        mx, optimizers = backend().mx, import_module("mlx.optimizers")
        started = monotonic()
        self.optimizer.learning_rate = self.recipe.rate(self.step)
        batch = draw_batch(self.digits, self.recipe, self.step)
        loss, gradients = self._gradient(self.mmdit, batch)
        gradients, _ = optimizers.clip_grad_norm(gradients, self.recipe.clip)
        self.optimizer.update(self.mmdit, gradients)
        self._follow()
        mx.eval(loss, self.mmdit.parameters(), self.optimizer.state, self.average)
        self.step += 1
        self.losses.append(float(loss.item()))
        self.seconds += monotonic() - started
        return self.losses[-1]

    def _follow(self) -> None:
        """Move the averaged weights; faster in the beginning, when they stand for little."""
        keep = min(self.recipe.averaging, (1 + self.step) / (10 + self.step))
        self.average = backend().utils.tree_map(
            lambda slow, fast: keep * slow + (1 - keep) * fast,
            self.average,
            self.mmdit.parameters(),
        )

    def save(self, folder: Path) -> None:
        """Write everything that going on needs; what was there stays whole until then."""
        trees = {
            "model": self.mmdit.parameters(),
            "average": self.average,
            "optimizer": self.optimizer.state,
        }
        arrays = dict(backend().utils.tree_flatten(trees))
        run = json.dumps(asdict(Run(self.recipe, self.losses, self.seconds)))
        fresh = folder / f"new-{STATE}"
        backend().mx.save_safetensors(str(fresh), arrays, metadata={"run": run})
        fresh.replace(folder / STATE)

    def resume(self, folder: Path) -> None:
        """Go on from what `save` left.

        Raises
        ------
        TaqError
            The folder holds a run of another recipe.
        """
        run, arrays = read_run(folder)
        if run.recipe != self.recipe:
            what = "holds a run of another recipe"
            raise TaqError(problem(what, where=str(folder), remedy="name another folder"))
        trees = backend().utils.tree_unflatten(list(arrays.items()))
        self.mmdit.update(trees["model"])
        self.average, self.optimizer.state = trees["average"], trees["optimizer"]
        self.losses, self.seconds, self.step = run.losses, run.seconds, len(run.losses)

    def export(self, path: Path) -> None:
        """Write the averaged weights in float16 and SD3's layout."""
        mx, tree_flatten = backend().mx, backend().utils.tree_flatten
        tensors = to_sd3(dict(tree_flatten(self.average)))
        halves = {key: value.astype(mx.float16) for key, value in tensors.items()}
        metadata = {"recipe": json.dumps(asdict(self.recipe)), "steps": str(self.step)}
        mx.save_safetensors(str(path), halves, metadata=metadata)


def velocity_loss(mmdit: Any, batch: Batch) -> Tensor:
    """Mean squared error of the velocity, for samples that each have their own noise level.

    A block looks its modulation up by the timestep it is called with. That key is the same for the
    whole batch, but what it leads to has a row per sample: so each can have a timestep of its own.
    """
    mx = backend().mx
    key = mx.array(0.0)
    embedded = mmdit.t_embedder(mx.array(batch.sigma) * 1000)
    conditioning = mmdit.y_embedder(mx.array(batch.pooled))[:, None, None, :] + embedded
    for module in modulated(mmdit):
        module._modulation_params = {key.item(): module.adaLN_modulation(conditioning)}
    predicted = mmdit(mx.array(batch.noisy), mx.array(batch.tokens)[:, :, None, :], key)
    for module in modulated(mmdit):
        module.pop("_modulation_params")
    return mx.mean(mx.square(predicted - mx.array(batch.velocity)))


def _initial() -> Any:
    """A fresh model; modulation and output start at zero (adaLN-Zero, Peebles and Xie 2023)."""
    mx, tree_map = backend().mx, backend().utils.tree_map
    mmdit = import_module("diffusionkit.mlx.mmdit").MMDiT(config())
    zeroed = [module.adaLN_modulation.layers[1] for module in modulated(mmdit)]
    for linear in [*zeroed, mmdit.final_layer.linear]:
        linear.update(tree_map(mx.zeros_like, linear.parameters()))
    return mmdit


def train(folder: Path, recipe: Recipe, *, on_step: OnStep | None = None) -> Trainer:
    """Train to the end of the recipe, saving on the way.

    Parameters
    ----------
    folder
        Keeps the state; a run that stopped goes on from there.
    on_step
        Called with the number of steps taken and the last loss.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(recipe)
    if (folder / STATE).exists():
        trainer.resume(folder)
    while trainer.step < recipe.steps:
        loss = trainer.advance()
        if on_step:
            on_step(trainer.step, loss)
        if trainer.step % recipe.every == 0 or trainer.step == recipe.steps:
            trainer.save(folder)
    trainer.export(folder / WEIGHTS)
    return trainer
