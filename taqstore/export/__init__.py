"""Documents and files in the formats of other tools; `formats` is the table of them."""
