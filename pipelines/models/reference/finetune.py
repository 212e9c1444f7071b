"""Fine-tunes of the reference model: what a user may hang on a calibrated base, in minutes.

Trained on digits of another look, either in all weights or as a LoRA (Hu et al. 2022): a low-rank
update of chosen linears, merged when it is written. `python -m taqstore.pipelines.models.reference
finetune FILE` makes one; it is a checkpoint like any other, for `--local-ckpt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from taqstore.errors import MisuseError, problem

from ..backend import backend
from ..load import load_pipeline
from .data import Digits, real_digits
from .model import Tensor, checkpoint_path, to_sd3
from .train import OnStep, Recipe, draw_batch, velocity_loss

Parameters = dict[str, Any]


@dataclass(frozen=True)
class FineTune:
    """What a fine-tune is made of.

    Attributes
    ----------
    look
        Key of `LOOKS`: the digits that it learns from.
    rank
        Of the update of each linear; 0: all weights are trained.
    linears
        Glob over names of linears (``mm3.img.attn.*``) that a low-rank update changes.
    steps, batch, seed, peak
        As in `train.Recipe`; rates fall to zero by a cosine.
    """

    look: str = "bold"
    rank: int = 4
    linears: str = "*.img.attn.*"
    steps: int = 150
    batch: int = 32
    seed: int = 0
    peak: float = 2e-3

    @property
    def recipe(self) -> Recipe:
        """The recipe of its batches and rates."""
        return Recipe(self.steps, self.batch, self.seed, self.peak, warmup=min(10, self.steps))


def finetune(path: Path, how: FineTune, *, on_step: OnStep | None = None) -> tuple[str, ...]:
    """Train the reference model on and write it, float16 in SD3's layout.

    Parameters
    ----------
    path
        Safetensors file to write.
    on_step
        Called with the number of steps taken and the last loss.

    Returns
    -------
    Names of the linears that a low-rank update changed; empty where all weights were trained.

    Raises
    ------
    MisuseError
        No look or no linear is called so.
    """
    if how.look not in LOOKS:
        raise MisuseError(problem(f"look {how.look!r} is not known", remedy=", ".join(LOOKS)))
    mx, optimizers = backend().mx, import_module("mlx.optimizers")
    model = load_pipeline("reference", local_ckpt=checkpoint_path())
    mmdit, recipe = model.mmdit, how.recipe
    chosen = _weights(model, how.linears) if how.rank else {}
    change = _low_rank(chosen, how) if how.rank else mmdit.trainable_parameters()
    digits, optimizer = looking(real_digits()[0], how.look), optimizers.AdamW(how.peak)
    base = {name: mx.array(weight) for name, weight in chosen.items()}

    def loss(change: Any, batch: Any) -> Tensor:
        _apply(mmdit, base, change)
        return velocity_loss(mmdit, batch)

    gradient = mx.value_and_grad(loss)
    for step in range(how.steps):
        optimizer.learning_rate = recipe.rate(step)
        value, gradients = gradient(change, draw_batch(digits, recipe, step))
        gradients, _ = optimizers.clip_grad_norm(gradients, recipe.clip)
        change = optimizer.apply_gradients(gradients, change)
        mx.eval(change, optimizer.state)
        if on_step:
            on_step(step + 1, float(value.item()))
    _apply(mmdit, base, change)
    tensors = to_sd3(dict(backend().utils.tree_flatten(mmdit.parameters())))
    mx.save_safetensors(
        str(path), {key: value.astype(mx.float16) for key, value in tensors.items()}
    )
    return tuple(_linears(model, how.linears)) if how.rank else ()


def _linears(model: Any, pattern: str) -> dict[str, str]:
    """Names of the linears of a glob -> where they are in the model."""
    readers = [reader for one in model.inputs() for reader in one.readers if reader.packable]
    found = {r.name.full: r.path for r in readers if fnmatchcase(r.name.full, pattern)}
    if not found:
        what = f"no linear is called like {pattern!r}"
        raise MisuseError(problem(what, found=", ".join(r.name.full for r in readers[:3]) + ", …"))
    return found


def _weights(model: Any, pattern: str) -> dict[str, Tensor]:
    flat = dict(backend().utils.tree_flatten(model.mmdit.parameters()))
    names = (f"{path}.weight" for path in _linears(model, pattern).values())
    return {name: flat[name] for name in names}


def _low_rank(weights: Mapping[str, Tensor], how: FineTune) -> Parameters:
    """Factors of every update: `down` (rank, in) random, `up` (out, rank) zero."""
    mx, rng = backend().mx, np.random.default_rng(how.seed)
    factors = {}
    for name, weight in weights.items():
        out, into = weight.shape
        down = rng.standard_normal((how.rank, into), dtype=np.float32) / np.sqrt(into)
        factors[name] = {"down": mx.array(down), "up": mx.zeros((out, how.rank))}
    return factors


def _apply(mmdit: Any, base: Mapping[str, Tensor], change: Any) -> None:
    """Put changed weights into the model: base and update added, or all parameters."""
    if not base:
        mmdit.update(change)
        return
    merged = [
        (name, weight + change[name]["up"] @ change[name]["down"]) for name, weight in base.items()
    ]
    mmdit.update(backend().utils.tree_unflatten(merged))


def looking(digits: Digits, look: str) -> Digits:
    """The same digits, drawn in another look."""
    return LOOKS[look](digits)


def _bold(digits: Digits) -> Digits:
    """Strokes as wide as the darkest of each pixel and its four neighbours."""
    wide = np.pad(digits.ink, ((0, 0), (1, 1), (1, 1)))
    around = [wide[:, 1:-1, 1:-1], wide[:, :-2, 1:-1], wide[:, 2:, 1:-1],
              wide[:, 1:-1, :-2], wide[:, 1:-1, 2:]]  # fmt: skip
    return replace(digits, ink=np.maximum.reduce(around))


def _inverted(digits: Digits) -> Digits:
    return replace(digits, ink=np.asarray(1 - digits.ink, np.float32))


def _even(digits: Digits) -> Digits:
    kept = np.flatnonzero(digits.label % 2 == 0)
    parts: dict[str, Any] = {name: values[kept] for name, values in vars(digits).items()}
    return replace(digits, **parts)


LOOKS: dict[str, Callable[[Digits], Digits]] = {
    "bold": _bold,
    "inverted": _inverted,
    "even": _even,
}
"""What fine-tunes learn from: wide strokes, black on white, or even digits only, as they are."""
