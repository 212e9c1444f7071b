"""Tables of the documentation, made from the tables of the code."""

from __future__ import annotations

from taqstore.plot.figures import FIGURES


def figure_table() -> str:
    """Every figure with what it shows, the variables it needs and its options, as Markdown."""
    lines = ["| figure | shows | needs | options |", "|---|---|---|---|"]
    for word, row in FIGURES.items():
        needs = " or ".join(", ".join(f"`{name}`" for name in names) for names in row.requires)
        options = ", ".join(f"`{name}`" for name in row.options)
        lines.append(f"| `{word}` | {row.doc} | {needs} | {options} |")
    return "\n".join(lines)
