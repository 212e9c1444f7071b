"""AdaRound: weights of a block rounded up or down so that its output changes least.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (arXiv 2004.10568),
block by block as in Li et al., "BRECQ" (arXiv 2102.05426), with activation step sizes learned
beside the rounding as in Esser et al., "Learned Step Size Quantization" (arXiv 1902.08153).
"""

from ..quantized.linear import InputStart
from .block import BlockRun, Minibatch, positions_of
from .forward import Errors
from .optimise import Optimiser, Rounded, WeightStart
from .settings import Settings

__all__ = [
    "BlockRun",
    "Errors",
    "InputStart",
    "Minibatch",
    "Optimiser",
    "Rounded",
    "Settings",
    "WeightStart",
    "positions_of",
]
