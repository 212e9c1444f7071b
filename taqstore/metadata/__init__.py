"""Documents of a store: sealed, recorded, read without trust, changed so that a kill harms none."""
