"""A store asked: slices, reductions, analyses site by site, two stores compared."""
