"""The vocabulary of every run that fills a store: how it behaves, what it did, whom it tells."""
