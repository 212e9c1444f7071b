"""`taqstore` with the tiny models in its table, for child processes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support import live_models  # noqa: F401  puts the tiny models into the table
from taqstore.cli import main

if __name__ == "__main__":
    main()
