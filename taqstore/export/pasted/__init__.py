"""Answers of analyses as text that other tools take: `--paste` of `taqstore analyze`."""
