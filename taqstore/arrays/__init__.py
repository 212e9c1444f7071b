"""Arrays of a store, read lazily: mapped, through dask, through zarr, or fetched and staged."""
