"""Options of a reconstruction, and the schedule they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from taqstore.asked import MAX_SEED, number, whole_number, word_of
from taqstore.errors import MisuseError
from taqstore.quantization.quantizer import MAX_BITS, MIN_BITS, integer_range
from taqstore.quantization.weight_grid import WeightClip, check_weight_bits

BATCH_SIZE = 32
_WHOLE = ("iterations", "batch_size", "patience", "seed")
_RANGES: dict[str, dict[str, Any]] = {
    "iterations": {"least": 1},
    "batch_size": {"least": 1},
    "patience": {"least": 0},
    "seed": {"least": 0, "most": MAX_SEED},
    "learning_rate": {"least": 0, "above": True},
    "step_rate": {"least": 0},
    "rounding_weight": {"least": 0},
    "warmup": {"least": 0, "most": 1, "below": True},
    "qdrop": {"least": 0, "most": 1, "below": True},
    "sigma_power": {"least": 0},
}


@dataclass(frozen=True)
class Settings:
    """How blocks are quantized and how long is spent on it.

    Parameters
    ----------
    bits, group_size, clip
        Of the weights: 2 to 8 bits; inputs that share a step (None: all of an output channel);
        rule of the step, see `taqstore.quantization.weight_grid.weight_steps`.
    activation_bits
        2 to 16; 0: activations are not quantized.
    iterations, batch_size
        Minibatches, and samples (both guidance rows) in each; None: 32, or as many as there are.
    learning_rate, step_rate
        Adam's rates: of V, and of activation steps relative to their size.
    rounding_weight, warmup, beta
        Weight of the rounding term; share of the iterations it is off; its beta after that and at
        the end, linear between.
    qdrop
        Share of activation elements left unquantized at random while learning (QDrop,
        arXiv 2203.05740).
    sigma_power
        Samples count as ``sigma ** sigma_power``, scaled to a mean of 1.
    patience
        Stop once roundings have settled and the loss, averaged over fiftieths of the iterations,
        has not improved by a thousandth this often; 0: never.
    seed
        Of the order of samples and of QDrop.

    Raises
    ------
    MisuseError
        A value makes no sense.
    """

    bits: int = 4
    group_size: int | None = None
    clip: WeightClip = "absmax"
    activation_bits: int = 8
    iterations: int = 20_000
    batch_size: int | None = None
    learning_rate: float = 1e-3
    step_rate: float = 4e-5
    rounding_weight: float = 0.01
    warmup: float = 0.2
    beta: tuple[float, float] = (20.0, 2.0)
    qdrop: float = 0.0
    sigma_power: float = 0.0
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_weight_bits(whole_number(self.bits, "bits"))
        if self.group_size is not None:
            whole_number(self.group_size, "group_size", least=1)
        word_of(self.clip, get_args(WeightClip), "weight clip")
        if self.activation_bits != 0:
            whole_number(self.activation_bits, "activation_bits", least=MIN_BITS, most=MAX_BITS)
        for name, ends in _RANGES.items():
            if name != "batch_size" or self.batch_size is not None:
                check = whole_number if name in _WHOLE else number
                check(getattr(self, name), name, **ends)
        for end in self.beta:
            number(end, "beta", least=2)
        if not self.activation_bits and self.qdrop:
            raise MisuseError("qdrop leaves activations as they are: without bits they all are")

    @property
    def batch(self) -> int:
        """Samples of a minibatch, where there are as many as are wanted."""
        return BATCH_SIZE if self.batch_size is None else self.batch_size

    @property
    def weight_range(self) -> tuple[int, int]:
        """Smallest and largest integer of the weights' grid."""
        return integer_range(self.bits)

    def beta_at(self, iteration: int) -> float | None:
        """Beta of the rounding term at an iteration from 0; None while the term is off.

        ``end + (start - end) (1 - t)``, t going from 0 at the end of the warm-up to 1 at the end of
        the iterations, as in BRECQ's code.
        """
        begin = self.warmup * self.iterations
        if iteration < begin:
            return None
        start, end = self.beta
        return end + (start - end) * (1 - (iteration - begin) / (self.iterations - begin))
