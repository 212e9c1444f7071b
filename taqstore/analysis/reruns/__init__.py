"""Images of two runs dealt anew: what chance alone does to a comparison."""
