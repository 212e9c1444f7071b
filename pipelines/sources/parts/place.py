"""A folder or file that may be a source, and what can be seen of it without reading its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from taqstore.files.npz import NpzFile

from .json_fields import read_document


@dataclass(frozen=True)
class Place:
    """Where a source may lie; a file is opened when it is first asked about.

    Raises
    ------
    SourceError
        By `keys` and `document`, if the file cannot be read.
    """

    path: Path

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Names of the arrays of an npz file; none in anything else."""
        return NpzFile(self.path).names if self._is_npz else ()

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """The object in a JSON file; empty for folders and npz files."""
        return {} if self.is_folder or self._is_npz else read_document(self.path)

    @property
    def format(self) -> Any:
        """What a JSON file says it is."""
        return self.document.get("format", self.document.get("version"))

    @property
    def _is_npz(self) -> bool:
        return not self.is_folder and self.path.suffix == ".npz"
