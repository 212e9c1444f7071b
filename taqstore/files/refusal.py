"""What is wrong with a source, in one line that always ends in a remedy."""

from __future__ import annotations

from taqstore import errors

MEND = "write it again or remove it, then run again with --resume"


def problem(what: str, *, where: str = "", found: str = "", remedy: str = MEND) -> str:
    """As `taqstore.errors.problem`, with the remedy that fits most defects of a file."""
    return errors.problem(what, where=where, found=found, remedy=remedy)
