"""Numbers of quantizers: step sizes, clip ranges, searches, allocations. NumPy only."""
