"""How the files of a store are laid out, and what their documents may claim."""
