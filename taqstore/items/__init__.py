"""Which items of a group are whole: records, flags, and a second copy of coordinates."""
