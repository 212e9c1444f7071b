"""Bytes on disk and the commit rule: data, flush, then flag."""
