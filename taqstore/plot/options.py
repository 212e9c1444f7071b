"""The options of figures, as `taqstore plot` and the service offer them."""

from __future__ import annotations

from taqstore.analysis.shared.option import Option

OPTIONS: tuple[Option, ...] = (
    Option("bits", "Bit width, where a kind prices one.", int, least=2, most=16),
    Option(
        "momentum",
        "Weight of what came before, where a kind draws a moving average.",
        least=0,
        most=1,
        below=True,
    ),
    Option("step", "Step index, where a kind draws one.", int, least=0),
    Option(
        "average",
        "Bits per value to spend on average [default: halfway below the middle one].",
        least=2,
        most=16,
    ),
    Option("orders", "Orders of batches, where a kind tries some.", int, least=1),
    Option("min_cosine", "Where a kind marks what falls below it.", least=-1, most=1),
)
"""Those that are no store; of the others of `FigureKind.options`, the library alone takes some."""
