"""Who holds something in a store that others reach from elsewhere: told, and found to be gone."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from taqstore.errors import printable
from taqstore.place.remote.options import without_secrets
from taqstore.place.remote.processes import is_alive

MAGIC = b'{"taqstore_lease":'
"""How the text of a lease or a claim begins; no flag does."""
# Clocks of hosts differ by less: a lease so many times older than it may be is nobody's.
_SURELY = 10


@cache
def machine() -> str:
    """What tells this machine, and these process numbers, from any others."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    import uuid

    return f"{socket.gethostname()}/{uuid.getnode():x}"


@dataclass
class Lease:
    """What an owner writes of itself, newly with every renewal.

    Parameters
    ----------
    valid
        Seconds: unchanged for so long, it is nobody's any more.
    unlike
        Bytes that it never has, so that listings tell it from a flag.
    """

    valid: float
    unlike: int = 0
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    since: str = field(default_factory=lambda: _now())
    beats: int = 0

    def text(self, *, free: bool = False) -> bytes:
        """The next content; it is never the same twice.

        Parameters
        ----------
        free
            Whether it is given back.
        """
        self.beats += 1
        told = {
            "taqstore_lease": 1,
            "token": self.token,
            "free": free,
            "beats": self.beats,
            "valid_s": self.valid,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": machine(),
            "command": command_line(),
            "since": self.since,
            "renewed": _now(),
        }
        text = json.dumps(told, separators=(",", ":")).encode()
        return text + b" " if len(text) == self.unlike else text


def command_line() -> str:
    """The command line as others may read it: what reaches a bucket may be a secret."""
    words = [os.path.basename(sys.argv[0]), *without_secrets(sys.argv[1:])]
    return printable(" ".join(words))[:200]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def told_by(content: bytes) -> Mapping[str, Any] | None:
    """What a lease or a claim says; None where it is neither."""
    if not content.startswith(MAGIC):
        return None
    try:
        told = json.loads(content)
        float(told["valid_s"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {"free": True, "valid_s": 0.0}  # nobody can renew it
    return dict(told)


def is_ours(told: Mapping[str, Any]) -> bool:
    """Whether this very process wrote it."""
    return told.get("machine") == machine() and told.get("process") == os.getpid()


def is_gone(told: Mapping[str, Any]) -> bool:
    """Whether it was given back, or its owner is known to live no more."""
    if told.get("free"):
        return True
    if told.get("machine") == machine():
        process = told.get("process")
        return isinstance(process, int) and not is_alive(process)
    try:
        age = datetime.now(UTC) - datetime.fromisoformat(str(told["renewed"]))
        return age.total_seconds() > _SURELY * float(told["valid_s"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return False


def who(told: Mapping[str, Any] | None) -> str:
    """An owner in words."""
    if told is None or "process" not in told:
        return "another process"
    return (
        f"process {told['process']} on {told.get('host')} ({told.get('command')}), "
        f"since {told.get('since')}"
    )


class Silence:
    """How long others have been silent, by this process's own clock: no two clocks are compared."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}

    def lasted(self, key: str, tag: str) -> float:
        """Seconds since an object with that tag was first seen there."""
        before = self._seen.get(key)
        if before is None or before[0] != tag:
            self._seen[key] = (tag, time.monotonic())
            return 0.0
        return time.monotonic() - before[1]

    def may_be_taken(self, key: str, tag: str, told: Mapping[str, Any]) -> bool:
        """Whether what is held there is nobody's any more."""
        silent = self.lasted(key, tag)
        return is_gone(told) or silent > float(told["valid_s"])
