"""The optimiser of one block: rounding of its weights and steps of its activations together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from taqstore.names import LayerName
from taqstore.quantization.quantizer import integer_range
from taqstore.quantization.weight_grid import dequantized, weight_steps

from ..backend import backend, beside
from ..failures import inside_model
from ..load import Tensor, to_numpy
from ..quantized.linear import InputStart, Noise, noise_of
from .block import BlockRun, Minibatch
from .forward import Errors, QuantizedForward
from .settings import Settings
from .soft import SoftWeight, soften, soften_at
from .weights import SoftWeights

# MLX's optimisers want a mapping at the root.
_ALL = "all"
# Share of weights that may still be between up and down when a plateau ends the optimisation.
_UNSETTLED, _IMPROVEMENT, _WINDOWS = 1e-3, 1e-3, 50


@dataclass(frozen=True)
class Rounded:
    """One linear, quantized.

    Parameters
    ----------
    weight
        int8 ``(out, in)``.
    step_size
        float32 ``(out, group)``.
    rounding
        V, float32 ``(out, in)``.
    activation_step
        float32 ``(time_group,)``; NaN where activations are not quantized.
    bits
        Of the weight.
    offset
        float32 ``(out, group)``, or None.
    """

    weight: np.ndarray
    step_size: np.ndarray
    rounding: np.ndarray
    activation_step: np.ndarray
    bits: int = 4
    offset: np.ndarray | None = None


@dataclass(frozen=True)
class WeightStart:
    """Where the rounding of one weight starts.

    Parameters
    ----------
    integers
        int8 ``(out, in)``.
    step, offset
        float32 ``(out, group)``; no offset: None.
    bits
        Of the grid.
    """

    integers: np.ndarray
    step: np.ndarray
    offset: np.ndarray | None
    bits: int

    def weights(self) -> np.ndarray:
        """What the integers stand for, float32 ``(out, in)``."""
        return dequantized(self.integers, self.step, self.offset)


class Optimiser:
    """State of one block's optimisation; use `learn`, then `rounded`.

    Parameters
    ----------
    run
        The block.
    settings
        What to do.
    starts
        Where the quantizer of each linear's input starts; empty where activations are not
        quantized.
    weights
        Where the roundings start, for all linears, in place of the weights themselves and the grid
        of `settings`; None.
    """

    def __init__(
        self,
        run: BlockRun,
        settings: Settings,
        starts: Mapping[LayerName, InputStart],
        weights: Mapping[LayerName, WeightStart] | None = None,
    ) -> None:
        optimisers = import_module("mlx.optimizers")
        self.run, self.settings = run, settings
        self._forward = QuantizedForward(run, settings.activation_bits, starts)
        self.steps = [_log_steps(starts.get(name)) for name, _ in run.linears]
        self._first_steps = list(self.steps)
        self._started = weights
        self._weights = SoftWeights(
            [self._split(name, module.weight) for name, module in run.linears],
            learning_rate=settings.learning_rate,
        )
        self._adam_step = optimisers.Adam(settings.step_rate, bias_correction=True)
        self._adam_step.init({_ALL: self.steps})
        self.losses: list[float] = []

    def _split(self, name: LayerName, weight: Tensor) -> tuple[SoftWeight, Tensor]:
        mx, settings = backend().mx, self.settings
        wide = weight.astype(mx.float32)
        if self._started is not None:
            start = self._started[name]
            offset = None if start.offset is None else mx.array(start.offset)
            ends = integer_range(start.bits)
            return soften_at(wide, mx.array(start.integers), mx.array(start.step), ends, offset)
        step = weight_steps(
            to_numpy(wide), bits=settings.bits, group_size=settings.group_size, clip=settings.clip
        )
        return soften(wide, mx.array(step), settings.weight_range)

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.losses)

    @property
    def done(self) -> bool:
        """Whether all iterations are done, or a plateau has ended them."""
        return self.iteration >= self.settings.iterations or self._plateau()

    def learn(self, batch: Minibatch) -> float:
        """One iteration; returns the loss of the minibatch without the rounding term."""
        mx = backend().mx
        loss, of_v, of_steps = self._slopes(batch)
        with mx.stream(beside()):
            self._weights.learn(of_v)
            if self.settings.activation_bits:
                updated = self._adam_step.apply_gradients({_ALL: of_steps}, {_ALL: self.steps})
                self.steps = updated[_ALL]
        with inside_model():
            mx.eval(loss, self._weights.evaluated, self.steps, self._adam_step.state)
        self.losses.append(float(np.float32(sum(one.item() for one in loss))))
        return self.losses[-1]

    def gradients(self, batch: Minibatch) -> tuple[float, list[Tensor], list[Tensor]]:
        """Loss without the rounding term; gradients of the loss with it.

        Returns
        -------
        loss, and gradients with respect to V and to the logarithms of activation steps, by linear.
        """
        losses, of_v, of_steps = self._slopes(batch)
        with inside_model():
            backend().mx.eval(losses)
        return sum(loss.item() for loss in losses), self._weights.joined(of_v), of_steps

    def _slopes(self, batch: Minibatch) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """As of `gradients`, V's by piece and losses by part; the last part is not evaluated yet.

        So one evaluation does all that a minibatch of one part takes, and what each weight asks
        for beside the passes is done beside them.
        """
        mx = backend().mx
        with mx.stream(beside()):
            weights = self._weights.soften()
        slope = mx.value_and_grad(self._loss, argnums=(0, 1))
        losses, sums = list[Tensor](), None
        with self._forward.installed(self._noise()):
            for part in self._forward.parts(batch):
                with inside_model():
                    mx.eval(losses, sums or ())
                loss, found = slope(weights, self.steps, part, batch.rows)
                sums = found if sums is None else _added(sums, found)
                losses.append(loss)
        assert sums is not None
        of_weights, of_steps = sums
        beta, share = self.settings.beta_at(self.iteration), self.settings.rounding_weight
        with mx.stream(beside()):
            return losses, self._weights.slopes(of_weights, beta=beta, share=share), of_steps

    @property
    def v(self) -> list[Tensor]:
        """Rounding variables float32 ``(out, group, input)`` of each linear."""
        return self._weights.v

    @v.setter
    def v(self, values: Sequence[Tensor]) -> None:
        self._weights.v = values

    def state(self) -> dict[str, Any]:
        """All that changes, as a tree of tensors: with it, `restore` goes on to the last bit."""
        return {
            "v": self.v,
            "steps": self.steps,
            "adam_v": self._weights.adam_state(),
            "adam_step": self._adam_step.state,
            "losses": backend().mx.array(np.array(self.losses, np.float32)),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._weights.restore(list(state["v"]), state["adam_v"])
        self.steps, self._adam_step.state = list(state["steps"]), state["adam_step"]
        self.losses = [float(loss) for loss in np.array(state["losses"])]

    def _loss(
        self, weights: list[Tensor], steps: list[Tensor], part: Minibatch, rows: int
    ) -> Tensor:
        """Sum over streams and elements of the squared error, by `rows`: a mean over the batch."""
        squares = self._forward.squares(weights, steps, part)
        return sum(square.sum() for square in squares.values()) / rows

    def _noise(self) -> list[Noise] | None:
        settings = self.settings
        if not settings.qdrop:
            return None
        return noise_of(
            len(self.v), share=settings.qdrop, seed=settings.seed, iteration=self.iteration
        )

    def _plateau(self) -> bool:
        width = max(1, self.settings.iterations // _WINDOWS)
        windows, patience = self.iteration // width, self.settings.patience
        if not patience or windows <= patience or self.iteration % width:
            return False
        means = np.reshape(self.losses[: windows * width], (windows, width)).mean(axis=1)
        stale = means[-patience:].min() > means[:-patience].min() * (1 - _IMPROVEMENT)
        return bool(stale) and self.unsettled() <= _UNSETTLED

    def unsettled(self) -> float:
        """Share of weights that are neither up nor down yet."""
        return self._weights.unsettled()

    def rounding_loss(self) -> float:
        """The rounding term as it stands, weighted as in the sum; 0 while it is off."""
        beta = self.settings.beta_at(self.iteration)
        if beta is None:
            return 0.0
        return self._weights.rounding_loss(beta) * self.settings.rounding_weight

    def rounded(self) -> dict[LayerName, Rounded]:
        """The result, by linear."""
        quantized = bool(self.settings.activation_bits)
        found = {}
        for (name, _), soft, v, step in zip(
            self.run.linears, self._weights.whole, self.v, self.steps, strict=True
        ):
            size = np.exp(np.array(step)) if quantized else np.full(step.shape, np.nan, np.float32)
            found[name] = Rounded(
                np.array(soft.hard(v)),
                np.array(soft.step[..., 0]),
                np.array(v).reshape(soft.shape),
                size,
                self.settings.bits if self._started is None else self._started[name].bits,
                None if soft.offset is None else np.array(soft.offset[..., 0]),
            )
        return found

    def errors(
        self, batches: Iterable[Minibatch], weights: Sequence[np.ndarray], inputs: str = "learned"
    ) -> Errors:
        """Errors of the block's output with these weights, float32 ``(out, in)`` of each linear.

        Parameters
        ----------
        inputs
            `learned`: quantized with the steps as they are now; `first`: as they began; `float`:
            not quantized.
        """
        if inputs == "float":
            plain = QuantizedForward(self.run, 0, {})
            return plain.errors(batches, weights, self._first_steps)
        steps = {"learned": self.steps, "first": self._first_steps}[inputs]
        return self._forward.errors(batches, weights, steps)

    def outputs(self, batches: Iterable[Minibatch]) -> Iterator[dict[str, np.ndarray]]:
        """Outputs of the rounded block, float32 ``(sample, row, token, channel)`` by stream."""
        mx = backend().mx
        weights = [mx.array(weight) for weight in self.hard_weights()]
        for batch in batches:
            with self._forward.installed():
                parts = [
                    {
                        n: np.array(x)
                        for n, x in self._forward.outputs(weights, self.steps, p).items()
                    }
                    for p in self._forward.parts(batch)
                ]
            yield {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def hard_weights(self) -> list[np.ndarray]:
        """Rounded weights, float32 ``(out, in)`` of each linear."""
        return [dequantized(r.weight, r.step_size, r.offset) for r in self.rounded().values()]


def _log_steps(start: InputStart | None) -> Tensor:
    """Logarithms of the steps: Adam's rate is then relative to their size."""
    step = np.ones(1) if start is None else start.step
    return backend().mx.array(np.log(step).astype(np.float32))


def _added(first: Any, second: Any) -> Any:
    return backend().utils.tree_map(lambda a, b: a + b, first, second)
