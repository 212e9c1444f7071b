"""What several analyses need: inputs checked, results stamped, bins shared."""
