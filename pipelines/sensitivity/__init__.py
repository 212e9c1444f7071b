"""Parts of a model quantized alone: what each does to trajectories, and static scores of each."""
