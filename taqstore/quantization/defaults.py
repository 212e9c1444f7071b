"""What options of commands say of quantization: no NumPy, for help is shown without it."""

from __future__ import annotations

from typing import Literal

ScaleDtype = Literal["auto", "float16", "float32"]
"""Of scales and biases of packed weights."""

DAMPING = 0.01
"""Share of the mean diagonal that is added to a second moment."""
