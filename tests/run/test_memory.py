"""Large arrays that are freed are the system's again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import sys
import numpy as np
from taqstore.run.memory import give_back_large

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

if sys.argv[1] == "given back":
    assert give_back_large()
np.ones(12 << 17)  # 12 MB, freed: glibc takes what is smaller from its heap from now on
before, large, small = resident(), [], []
for _ in range(30):
    large.append(np.ones(6 << 17))
    small.append(np.ones(12_500))
large.clear()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc")
def test_what_is_freed_is_given_back() -> None:
    # Where one threshold is set, glibc moves none of them by itself.
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", _PROGRAM, word], text=True, env=usual))
        for word in ("kept", "given back")
    )
    assert given_back < 10 << 20
    assert kept > 100 << 20
