"""Groups and arrays as their checked documents tell them, with the attributes that zarr gives them.

zarr takes a task of its event loop, and a class of its own for each codec, to say what stands in a
document that was parsed and checked before. It is asked where it has to decode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from taqstore.layout.array_documents import STRING
from taqstore.layout.coordinate_files import decoded
from taqstore.metadata.sealed import Document, damaged, encoded, foreign
from taqstore.metadata.tree import Loaded

if TYPE_CHECKING:
    import zarr

_WORDS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
"""How a document writes what JSON has no number for."""


@dataclass(frozen=True)
class ArrayNode:
    """An array of a group; shapes, dtype and fill as `zarr.Array` has them.

    Parameters
    ----------
    path
        Below the root of the store.
    document
        Its own, checked.
    opener
        Opens the zarr store that holds its data.
    """

    path: str
    document: Document
    opener: Callable[[], Any]

    def __reduce__(self) -> tuple[Any, ...]:
        return ArrayNode, (self.path, self.document, self.opener)

    @property
    def basename(self) -> str:
        """Its name in its group."""
        return self.path.rsplit("/", 1)[-1]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension."""
        return tuple(self.document["shape"])

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return tuple(self.document["dimension_names"] or ())

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        if self.is_text:
            found: np.dtype[Any] = self.zarr.dtype
            return found
        return np.dtype(self.document["data_type"])

    @property
    def is_text(self) -> bool:
        """Whether it holds strings."""
        return bool(self.document["data_type"] == STRING)

    @cached_property
    def codecs(self) -> list[Document]:
        """Of a file: those of its chunks inside the sharding, where it is sharded."""
        return list(self.document["codecs"])

    @cached_property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard; None where a file is one chunk."""
        return self._grid if self.codecs[0]["name"] == "sharding_indexed" else None

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk: of an inner one, where there are shards."""
        if self.shards is None:
            return self._grid
        return tuple(self.codecs[0]["configuration"]["chunk_shape"])

    @property
    def _grid(self) -> tuple[int, ...]:
        return tuple(self.document["chunk_grid"]["configuration"]["chunk_shape"])

    @cached_property
    def fill_value(self) -> Any:
        """Value of what is not written."""
        told, kind = self.document["fill_value"], None if self.is_text else self.dtype.kind
        if kind == "b" and isinstance(told, bool):
            return np.bool_(told)
        if kind == "f" and isinstance(told, str) and told in _WORDS:
            return self.dtype.type(_WORDS[told])
        number = isinstance(told, int | float) and not isinstance(told, bool)
        if number and (kind == "f" or (kind in ("i", "u") and self._holds(told))):
            return self.dtype.type(told)
        return self.zarr.fill_value

    def _holds(self, told: Any) -> bool:
        limits = np.iinfo(self.dtype)
        return isinstance(told, int) and limits.min <= told <= limits.max

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """What else its document says."""
        return _attributes(self.document, self.path)

    @cached_property
    def zarr(self) -> Any:
        """The array for zarr, which decodes what is nothing else here can."""
        import zarr

        from taqstore.metadata.overlay import Overlay

        overlay = Overlay(self.opener(), {f"{self.path}/zarr.json": encoded(self.document)})
        with foreign(self.path):
            return zarr.open_array(overlay, path=self.path, mode="r", zarr_format=3)

    @property
    def metadata(self) -> Any:
        """What zarr makes of its document."""
        return self.zarr.metadata

    @property
    def store(self) -> Any:
        """The zarr store that holds it."""
        return self.zarr.store

    @property
    def oindex(self) -> Any:
        """Orthogonal selections, decoded by zarr."""
        return self.zarr.oindex

    def nbytes_stored(self) -> int:
        """Bytes of its files, counted."""
        return int(self.zarr.nbytes_stored())


@dataclass(frozen=True)
class GroupNode:
    """A group: its attributes and its arrays, without what lies deeper.

    Parameters
    ----------
    loaded
        Its checked documents and files.
    opener
        Opens the zarr store that holds its data.
    """

    loaded: Loaded
    opener: Callable[[], Any]

    @property
    def path(self) -> str:
        """Below the root of the store."""
        return self.loaded.path

    @cached_property
    def attrs(self) -> dict[str, Any]:
        """What its document says beside the arrays."""
        return _attributes(self.loaded.document, self.path)

    @cached_property
    def _arrays(self) -> Mapping[str, ArrayNode]:
        found = {}
        for name in sorted(self.loaded.record.paths):
            document = None if "/" in name else self.loaded.node_document(name)
            if document is not None and document.get("node_type") == "array":
                array = ArrayNode(f"{self.path}/{name}", document, self.opener)
                with foreign(array.path):
                    assert isinstance(array.attrs, dict)
                    found[name] = array
        return found

    def arrays(self) -> Iterator[tuple[str, ArrayNode]]:
        """Its arrays by name, in order."""
        yield from self._arrays.items()

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> ArrayNode:
        return self._arrays[name]

    def values(self, name: str) -> np.ndarray[Any, Any]:
        """A coordinate whose files were read with the group; zarr decodes what is not plain."""
        array = self[name]
        found = decoded(array.path, array.document, self.loaded.content)
        if found is not None:
            return found
        by_zarr: Any = self.zarr[name]
        return np.asarray(by_zarr[...])

    @cached_property
    def zarr(self) -> zarr.Group:
        """The group for zarr."""
        return self.loaded.node(self.opener())


def _attributes(document: Document, where: str) -> dict[str, Any]:
    found = document.get("attributes") or {}
    if not isinstance(found, dict):
        raise damaged(where, "attributes that are none")
    return found
