"""Measurements of taqstore against npz folders, h5py and tensorstore; see README.md."""
