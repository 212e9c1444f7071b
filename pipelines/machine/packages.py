"""Python and the packages that taqstore says it needs, beside those that are installed."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from taqstore.version import __version__

from .check import Check

NAME = "taqstore"
# Of those who use it; the other extras are for developing.
USED = {
    "files": "output to .nc and .parquet",
    "models": "commands that run a model",
    "distributed": "--scheduler distributed, or an address",
    "remote": "stores in buckets, on the web and on the Hub",
    "peers": "export imatrix",
}


def package_checks() -> Iterator[Check]:
    """Python, taqstore, what it needs always, and each extra."""
    try:
        needed = [Requirement(text) for text in requires(NAME) or ()]
        python = SpecifierSet(metadata(NAME)["Requires-Python"])
    except PackageNotFoundError:
        yield Check(NAME, f"{__version__}, not installed", "wrong", "pip install . in its checkout")
        return
    yield _python(python)
    yield Check(NAME, __version__)
    yield _always([one for one in needed if _wanted(one)])
    for extra, what in USED.items():
        own = [one for one in needed if one.marker and _wanted(one, extra) and not _wanted(one)]
        yield _extra(extra, what, own)


def installed(name: str) -> str:
    """Version of a package; empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def unmet(needed: Iterable[Requirement]) -> list[str]:
    """Those that are not there, or in a version out of bounds: what is asked and what is there.

    >>> unmet([Requirement("taqstore-of-another-world>=3")])
    ['taqstore-of-another-world>=3 (not installed)']
    """
    found = [(one, installed(one.name)) for one in needed]
    return [
        f"{one.name}{one.specifier} ({there or 'not installed'})"
        for one, there in found
        if not there or not one.specifier.contains(there, prereleases=True)
    ]


def _wanted(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _python(wanted: SpecifierSet) -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if wanted.contains(platform.python_version(), prereleases=True):
        return Check("python", f"{found}, {sys.executable}")
    return Check("python", found, "wrong", f"use Python {wanted}")


def _always(needed: list[Requirement]) -> Check:
    lacking = unmet(needed)
    if lacking:
        remedy = "pip install --upgrade taqstore, or . in its checkout"
        return Check("packages", f"out of bounds: {', '.join(lacking)}", "wrong", remedy)
    names = ("numpy", "zarr", "xarray", "dask")
    told = ", ".join(f"{name} {installed(name)}" for name in names)
    return Check("packages", f"all {len(needed)}: {told}, ...")


def _extra(extra: str, what: str, needed: list[Requirement]) -> Check:
    lacking = unmet(needed)
    if not lacking:
        return Check(f"extra {extra}", f"all {len(needed)} ({what})")
    remedy = f"pip install 'taqstore[{extra}]', or '.[{extra}]' in its checkout: {what}"
    return Check(f"extra {extra}", f"lacks {', '.join(lacking)}", "absent", remedy)
