"""The gate: whether the trajectories of a variant stay with those of the model as it is."""
