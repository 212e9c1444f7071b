"""A model sampled quantized in several ways, beside itself as it is."""
