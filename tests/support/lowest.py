"""`python tests/support/lowest.py [--installed]`: the lowest versions that pyproject.toml allows.

Printed as constraints for pip: every requirement of the project and of its extras that has a lower
bound becomes a line ``name==bound``. What those packages bring themselves is left to pip. With
`--installed`, the versions are compared with those that are there, which tells that they are run.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def requirements(project: Path = PROJECT) -> Iterator[Requirement]:
    """Every requirement: of the project first, then of its extras."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    for texts in (table["dependencies"], *table["optional-dependencies"].values()):
        yield from map(Requirement, texts)


def bound(requirement: Requirement) -> str | None:
    """Its lower bound; None where it has none."""
    found = [part.version for part in requirement.specifier if part.operator == ">="]
    return max(found, key=Version) if found else None


def constraints(project: Path = PROJECT) -> list[str]:
    """Lines ``name==bound``, with their markers."""
    lines = set()
    for requirement in requirements(project):
        lowest = bound(requirement)
        if lowest is not None:
            marker = f"; {requirement.marker}" if requirement.marker else ""
            lines.add(f"{requirement.name}=={lowest}{marker}")
    return sorted(lines)


def differences(project: Path = PROJECT) -> list[str]:
    """What is installed in another version than the lowest."""
    lines = {}
    for requirement in requirements(project):
        lowest = bound(requirement)
        if lowest is None or (requirement.marker and not requirement.marker.evaluate()):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            continue  # of an extra that the suite does not need
        if Version(found) != Version(lowest):
            lines[requirement.name] = f"{requirement.name} {found}, not {lowest}"
    return sorted(lines.values())


if __name__ == "__main__":
    if "--installed" in sys.argv[1:]:
        if lines := differences():
            sys.exit("not the lowest versions: " + "; ".join(lines))
        print(f"lowest versions of {len(constraints())} requirements")
    else:
        print("\n".join(constraints()))
