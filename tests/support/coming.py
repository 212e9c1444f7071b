"""`python tests/support/coming.py NAME...`: versions that `make canary` tries, which are new."""

from __future__ import annotations

import sys
from importlib.metadata import version

from packaging.version import Version


def described(name: str) -> str:
    """A package's version, and whether it is one that is yet to be released."""
    found = version(name)
    if Version(found).is_prerelease:
        return f"{name} {found}: a pre-release"
    return f"{name} {found}: released; no pre-release newer than it could be had"


if __name__ == "__main__":
    print("\n".join(map(described, sys.argv[1:])))
