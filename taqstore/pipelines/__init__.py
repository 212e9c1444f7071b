"""The pipelines, under a name that no other package can take.

Their files are not here. A checkout keeps them in `pipelines/` at its top, where they are easy to
find; a wheel in `taqstore/_pipelines`. They import each other relatively, so what they are called
is settled here alone, and a folder `pipelines` that a user works in never stands in for them.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
__path__ = [
    str(folder)
    for folder in (_PACKAGE / "_pipelines", _PACKAGE.parent / "pipelines")
    if folder.is_dir()
][:1]
