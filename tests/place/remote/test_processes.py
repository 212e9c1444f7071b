"""Whether who holds something still runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from taqstore.place.remote.processes import is_alive


@pytest.mark.skipif(sys.platform != "linux", reason="what tells it is Linux's own")
def test_who_has_ended_is_not_alive_though_nobody_waited_for_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        assert is_alive(process.pid)
        assert process.stdin is not None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # and leaves it as it is
        assert not is_alive(process.pid)
    assert not is_alive(process.pid)
    assert is_alive(os.getpid())
