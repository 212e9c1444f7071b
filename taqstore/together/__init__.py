"""Several stores of one run taken together: compared, numbered, read as one."""
