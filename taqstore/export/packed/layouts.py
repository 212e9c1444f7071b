"""Layouts of a model's tensors; no NumPy, for the table of formats names them."""

from __future__ import annotations

MLX, CHECKPOINT = "mlx", "checkpoint"
"""DiffusionKit's parameters, and a checkpoint as it is."""
