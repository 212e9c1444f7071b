"""Everything that puts bytes into a store: wires between sources, models and the library."""
