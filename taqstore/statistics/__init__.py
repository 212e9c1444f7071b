"""One tensor -> observations that merge: extrema, moments, histograms. NumPy only."""
