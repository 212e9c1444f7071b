"""Counts of all items of a group added up, kept beside them."""
