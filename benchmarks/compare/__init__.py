"""Two source trees beside each other: every measurement in turn, each in a process of its own."""
