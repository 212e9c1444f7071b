"""Statistics of every linear input, collected while a model runs."""
