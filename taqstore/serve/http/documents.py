"""Documents as JSON: NaN is null, infinities are the strings ``inf`` and ``-inf``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_AT_ONCE = (str, int, bool, type(None))


def written(document: Any) -> bytes:
    """A document as JSON; floats are the shortest that their own dtype reads back."""
    try:
        text = json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, TypeError):
        text = json.dumps(plain(document), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def plain(value: Any) -> Any:
    """The same of what JSON has: arrays and scalars of NumPy as lists and numbers."""
    if isinstance(value, float):  # NumPy's float64 is one
        return _finite(float(value))
    if isinstance(value, _AT_ONCE):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    return _of_numpy(value)


def _of_numpy(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.floating):  # float32 has shorter texts than its float64
        return _finite(float(str(value)))
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and value.dtype != np.float64:
            return [plain(one) for one in value]
        return plain(value.tolist())
    raise TypeError(f"no JSON of {type(value).__name__}")


def _finite(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
