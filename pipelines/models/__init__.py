"""Models that fill a store: the only importers of MLX and DiffusionKit.

Nothing here is imported before a model is wanted; `backend.backend` says what to install where MLX
or DiffusionKit is missing. Differences between models are rows of `table.MODELS`.
"""
