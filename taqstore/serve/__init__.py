"""The store over HTTP: Zarr for programs, the analyses for both, an explorer for eyes."""
