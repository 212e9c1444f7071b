"""What sharing a clip range over steps costs."""
