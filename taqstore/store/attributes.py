"""Attributes of an opened group as every file format holds them, and what they were.

NetCDF knows texts, numbers and lists of either. A store's attributes may be objects, such as the
run that made a group: of an opened group these are JSON text, so that xarray writes it anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from numbers import Number
from typing import Any, Protocol

_WORDS = ("null", "true", "false")


class _Holder(Protocol):
    @property
    def attrs(self) -> Any: ...


def as_held(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes with those that netCDF has no word for as JSON text.

    >>> as_held({"model": "sd3", "steps": 28, "run": {"bits": 4}, "final": None})
    {'model': 'sd3', 'steps': 28, 'run': '{"bits": 4}', 'final': 'null'}
    """
    return {
        name: value if _is_plain(value) else json.dumps(value, ensure_ascii=False)
        for name, value in attrs.items()
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, str) for one in value) or all(map(_is_number, value))
    return isinstance(value, str) or _is_number(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, bool)


def attribute_of(holder: _Holder, name: str, default: Any = None) -> Any:
    """What an attribute of a Dataset or a variable was in the store: an object, a list, None.

    Parameters
    ----------
    holder
        Opened by taqstore, or by xarray, which leaves objects as they are.
    default
        Where there is no such attribute.
    """
    value = holder.attrs.get(name, default)
    if isinstance(value, str) and (value[:1] in ("{", "[") or value in _WORDS):
        return json.loads(value)
    return value
