"""Linears of a model that run quantized for a while."""
