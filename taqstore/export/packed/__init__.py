"""Whole models with packed weights, as the runtimes that they are for read them."""
