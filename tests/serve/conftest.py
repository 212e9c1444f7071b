"""Fixtures of tests of the service: stores, and a server over them."""

from __future__ import annotations

from support.explored_stores import explored, service  # noqa: F401
