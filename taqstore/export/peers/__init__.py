"""Files that other tools read: static statistics of every linear, under names of theirs."""
