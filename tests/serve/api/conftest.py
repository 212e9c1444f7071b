"""Fixtures of tests of the library over HTTP."""

from __future__ import annotations

from support.asked import client, two_runs
from support.cli_runner import taq

__all__ = ["client", "taq", "two_runs"]
