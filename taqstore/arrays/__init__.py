"""Arrays of a store, read lazily: mapped, through dask, or through zarr."""
