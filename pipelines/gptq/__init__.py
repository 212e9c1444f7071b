"""Weights rounded by GPTQ, from second moments that a store has; the model never runs."""
