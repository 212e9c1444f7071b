"""Numbers of quantizers: step sizes, clip ranges, searches, allocations. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taqstore.faces import lazy_face

if TYPE_CHECKING:
    from taqstore.quantization.allocation import allocate as allocate
    from taqstore.quantization.candidates import Scheme as Scheme
    from taqstore.quantization.counts import expected_error as expected_error
    from taqstore.quantization.entropy import entropy_range as entropy_range
    from taqstore.quantization.quantizer import Quantizer as Quantizer
    from taqstore.quantization.quantizer import affine as affine
    from taqstore.quantization.quantizer import integer_range as integer_range
    from taqstore.quantization.quantizer import symmetric as symmetric
    from taqstore.quantization.search import best_quantizer as best_quantizer
    from taqstore.quantization.spread import Spread as Spread
    from taqstore.quantization.weight_grid import dequantized as dequantized
    from taqstore.quantization.weight_grid import round_to_nearest as round_to_nearest
    from taqstore.quantization.weight_grid import weight_steps as weight_steps

lazy_face(
    __name__,
    {
        "Quantizer": "taqstore.quantization.quantizer",
        "Scheme": "taqstore.quantization.candidates",
        "Spread": "taqstore.quantization.spread",
        "affine": "taqstore.quantization.quantizer",
        "allocate": "taqstore.quantization.allocation",
        "best_quantizer": "taqstore.quantization.search",
        "dequantized": "taqstore.quantization.weight_grid",
        "entropy_range": "taqstore.quantization.entropy",
        "expected_error": "taqstore.quantization.counts",
        "integer_range": "taqstore.quantization.quantizer",
        "round_to_nearest": "taqstore.quantization.weight_grid",
        "symmetric": "taqstore.quantization.quantizer",
        "weight_steps": "taqstore.quantization.weight_grid",
    },
)
