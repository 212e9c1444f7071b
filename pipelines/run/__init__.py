"""What pipelines share: how a run behaves, what it did, whom it tells."""
