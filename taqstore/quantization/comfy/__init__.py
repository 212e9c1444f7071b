"""Four-bit weights of ComfyUI: rotated inputs, a codebook of 16 levels, a float8 scale per 16."""
