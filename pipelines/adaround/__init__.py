"""AdaRound: cached streams of a store -> integer weights, block by block."""
