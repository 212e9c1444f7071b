"""JSON documents of the source scripts and others, made from tables of every linear."""
