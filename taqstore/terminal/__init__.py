"""Text on a terminal: how wide it is, and what fits."""
