"""Two trajectories side by side: how alike they are step by step, and how sure a mean is."""
