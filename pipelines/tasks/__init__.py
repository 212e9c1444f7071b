"""Units of a run, done here in turn or as tasks of a cluster."""
