"""How a clip range is chosen."""
