"""`python -m benchmarks.page FILE …`: tables of docs/measurements.md from what was measured.

A table stands between ``<!-- made: NAME -->`` and ``<!-- /made -->``; the text around it is written
by hand. Results of `python -m benchmarks.compare` make `compared` and `machine`, those of
`python -m benchmarks` and `python -m benchmarks.growth` make `growth`. Names without results keep
the table they have.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .compare.figures import Figure, markdown

PAGE = Path(__file__).resolve().parents[1] / "docs" / "measurements.md"
_MARKED = re.compile(r"(<!-- made: ([a-z]+) -->\n).*?(<!-- /made -->)", re.S)


def compared(results: Mapping[str, Any]) -> list[str]:
    """Two trees beside each other."""
    return markdown([Figure.from_json(one) for one in results["compared"]])


def machine(results: Mapping[str, Any]) -> list[str]:
    """Where it was measured, of what, and who multiplied."""
    about, trees = results["environment"], results.get("trees", {})
    versions = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    blas = about["blas"]
    lines = [
        f"{about['system'].split('-')[0]} on {about['machine']}, {about['cpus']} cores, "
        f"Python {about['python']}; {versions}. NumPy multiplies with {blas['numpy']}, MLX with "
        f"{blas['mlx']}.",
    ]
    if trees:
        lines.append(f"Before is commit {trees['before']}, after is {trees['after']}.")
    return lines


def growth(results: Mapping[str, Any]) -> list[str]:
    """Exponents of time and memory by action and axis."""
    axes = ("images", "steps", "blocks")
    found: dict[str, dict[str, Any]] = {}
    for curve in results["growth"]:
        found.setdefault(curve["action"], {})[curve["axis"]] = curve
    lines = ["| | " + " | ".join(f"{axis}: time | memory" for axis in axes) + " |",
             "|---" * (1 + 2 * len(axes)) + "|"]  # fmt: skip
    for action, curves in found.items():
        cells = [_cell(curves.get(axis), of) for axis in axes for of in ("time", "memory")]
        lines.append(f"| `{action}` | " + " | ".join(cells) + " |")
    return lines


def _cell(curve: Mapping[str, Any] | None, of: str) -> str:
    """The exponent and its range, and the figure at the largest size."""
    if curve is None:
        return "-"
    last, fitted = curve["points"][-1], curve["fits"][of]
    verdict = curve["verdicts"][of]
    most = f"{min(last['cpu']):.3g} s" if of == "time" else f"{max(last['peak']) / 1e6:.0f} MB"
    if verdict == "flat":
        return f"flat; {most}"
    exponent = f"{fitted['exponent']:.2f} ({fitted['low']:.2f}-{fitted['high']:.2f})"
    return f"**{exponent}**; {most}" if verdict == "ABOVE" else f"{exponent}; {most}"


MAKERS = {"compared": compared, "machine": machine, "growth": growth}
"""Tables by their names in the page."""


def made(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every table that these results have figures for."""
    needs = {"compared": "compared", "machine": "environment", "growth": "growth"}
    return {name: MAKERS[name](results) for name, key in needs.items() if results.get(key)}


def filled(page: str, tables: Mapping[str, Sequence[str]]) -> str:
    """The page with its tables made anew; those that are not given stay.

    Raises
    ------
    ValueError
        The page has no place for a table.
    """
    places = {name for _, name, _ in _MARKED.findall(page)}
    if missing := tables.keys() - places:
        raise ValueError(f"no place in the page for: {', '.join(sorted(missing))}")

    def put(match: re.Match[str]) -> str:
        start, name, end = match.groups()
        lines = tables.get(name)
        return match[0] if lines is None else "\n".join([start.rstrip("\n"), *lines, end])

    return _MARKED.sub(put, page)


def main() -> None:
    """Read results, write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.page", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("results", type=Path, nargs="+", help="later ones before earlier ones")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    tables: dict[str, list[str]] = {}
    for path in given.results:
        tables |= made(json.loads(path.read_text(encoding="utf-8")))
    given.page.write_text(filled(given.page.read_text("utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
