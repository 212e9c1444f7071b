"""How places are reached: options, clients, archives, and what servers refuse."""
