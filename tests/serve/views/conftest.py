"""Fixtures of tests of what the explorer shows."""

from __future__ import annotations

from support.asked import client, two_runs
from support.cli_runner import taq

__all__ = ["client", "taq", "two_runs"]
