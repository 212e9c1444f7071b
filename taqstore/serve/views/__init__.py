"""What the explorer shows, as numbers: a file for each view."""
