"""Documents as a reader of their JSON gets them, without a file."""

from __future__ import annotations

from typing import Any

import orjson

from taqstore.files.documents import Document, Members


def as_plain(document: Document) -> dict[str, Any]:
    """The document as `json.load` would give it: all entries made, arrays as lists."""
    whole = {k: dict(v) if isinstance(v, Members) else v for k, v in document.items()}
    plain: dict[str, Any] = orjson.loads(orjson.dumps(whole, option=orjson.OPT_SERIALIZE_NUMPY))
    return plain
