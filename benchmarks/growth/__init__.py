"""How time and memory grow with images, steps and blocks: curves, and exponents fitted to them."""
