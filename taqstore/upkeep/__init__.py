"""Whole stores: what they hold, whether they are whole, two made one."""
