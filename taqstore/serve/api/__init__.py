"""The library over HTTP: a table of endpoints, and how each is answered."""
