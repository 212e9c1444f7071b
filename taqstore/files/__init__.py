"""Whatever is not a store: read without trust, written whole or not at all."""
