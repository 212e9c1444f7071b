"""One file for each word of `taqstore plot`."""
