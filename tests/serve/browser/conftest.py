"""Fixtures of tests in a browser: `looked` is a page, `chromium` what it is drawn by."""

from __future__ import annotations

from support.explorer import chromium, looked  # noqa: F401
