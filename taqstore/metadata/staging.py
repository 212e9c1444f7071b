"""A group under change, in memory: zarr works on it, nothing reaches the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from taqstore.metadata.root import GROUP_DOCUMENT, KEY
from taqstore.metadata.sealed import Document, encoded
from taqstore.metadata.tree import Loaded

if TYPE_CHECKING:
    import zarr


class Staging:
    """A group under change, in memory: zarr works on it, nothing reaches the store."""

    def __init__(self, loaded: Loaded | None = None) -> None:
        from zarr.core.buffer import cpu
        from zarr.storage import MemoryStore

        self.before = {} if loaded is None else dict(loaded.content)
        self._memory: dict[str, Any] = {
            KEY: cpu.Buffer.from_bytes(encoded(GROUP_DOCUMENT)),
            **{key: cpu.Buffer.from_bytes(raw) for key, raw in self.before.items()},
        }
        self._store = MemoryStore(self._memory)

    @property
    def root(self) -> zarr.Group:
        """A root to work below."""
        import zarr

        return zarr.open_group(self._store, mode="r+", use_consolidated=False)

    def files(self, path: str) -> dict[str, bytes]:
        """Small files below a group as they are staged, by key below it; no documents."""
        prefix = f"{path}/"
        return {
            key[len(prefix) :]: buffer.to_bytes()
            for key, buffer in self._memory.items()
            if key.startswith(prefix) and not key.endswith(KEY)
        }

    def put(self, path: str, files: Mapping[str, bytes]) -> None:
        """Stage files below a group as they are given."""
        from zarr.core.buffer import cpu

        for key, raw in files.items():
            self._memory[f"{path}/{key}"] = cpu.Buffer.from_bytes(raw)

    def changed(self, path: str) -> tuple[dict[str, Document], dict[str, bytes], Document]:
        """Documents and files below the group that came out different, and its own document."""
        documents: dict[str, Document] = {}
        files: dict[str, bytes] = {}
        prefix = f"{path}/"
        for key, buffer in self._memory.items():
            raw = buffer.to_bytes()
            if not key.startswith(prefix) or self.before.get(key) == raw:
                continue
            name = key[len(prefix) :]
            if not name.endswith(KEY):
                files[name] = raw
            elif name != KEY:
                document = json.loads(raw)
                old = self.before.get(key)
                if old is None or json.loads(old) != document:
                    documents[name.removesuffix(f"/{KEY}")] = document
        return documents, files, json.loads(self._memory[f"{prefix}{KEY}"].to_bytes())
