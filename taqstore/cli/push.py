"""`taqstore push`."""

from __future__ import annotations

from taqstore.cli.transfer import make_command

command = make_command("push")
