"""JSON Schemas: where they lie, and documents checked against them.

A document may hold NumPy vectors where its schema says array: a vector of numbers is checked as a
whole, so that a config of 14 million shifts is validated in a fraction of a second. NaN and the
infinities are no JSON numbers and are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from taqstore.asked import meant, nearest
from taqstore.errors import MissingError, TaqError, problem

SUFFIX = ".schema.json"
# Keywords that hold for every element of a vector if they hold for its extremes.
_MONOTONE = {"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "description"}
_MESSAGE_LENGTH = 200


class DocumentError(TaqError, ValueError):
    """A document does not fit its JSON Schema."""


@cache
def schema_folder() -> Path:
    """Folder of the schemas: inside an installed package, or beside it in a checkout.

    Raises
    ------
    MissingError
        There is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_schemas", package.parent / "schemas"):
        if any(folder.glob(f"*{SUFFIX}")):
            return folder
    raise MissingError(
        problem("the JSON Schemas are not installed", remedy="install taqstore again")
    )


def schema_names() -> list[str]:
    """Names of all schemas: `quant-config-v4`, `provenance`, ..."""
    return sorted(path.name.removesuffix(SUFFIX) for path in schema_folder().glob(f"*{SUFFIX}"))


@cache
def load_schema(name: str) -> dict[str, Any]:
    """The schema called `name`; treat it as read-only.

    Raises
    ------
    MissingError
        There is no such schema.
    """
    if name not in schema_names():
        raise MissingError(problem(f"no schema {name!r}", remedy=meant(name, schema_names())))
    schema: dict[str, Any] = json.loads((schema_folder() / f"{name}{SUFFIX}").read_text("utf-8"))
    return schema


def validate(name: str, document: Mapping[str, Any], *, where: str = "") -> None:
    """Check a whole document.

    Parameters
    ----------
    name
        Name of a schema, one of `schema_names`.
    document
        Parsed JSON; vectors may be one-dimensional NumPy arrays.
    where
        File the document is of, for the message.

    Raises
    ------
    DocumentError
        It does not fit; the message names the place as a JSON path.
    """
    _raise_first(name, _validator(name, "").iter_errors(document), where)


def validate_member(name: str, member: str, key: str, value: Any, *, where: str = "") -> None:
    """Check one entry of the object `member` of a document, as `validate` would in the whole.

    Raises
    ------
    DocumentError
        ``document[member][key] = value`` does not fit.
    """
    errors = _validator(name, member).iter_errors({key: value})
    _raise_first(name, errors, where, prefix=f".{member}")


@cache
def _validator(name: str, member: str) -> Any:
    schema = load_schema(name)
    root = _Validator(schema)
    return root.evolve(schema=schema["properties"][member]) if member else root


def _raise_first(
    name: str, errors: Iterator[ValidationError], where: str, *, prefix: str = ""
) -> None:
    try:
        error = best_match(errors)
    except RecursionError as deep:
        raise DocumentError(problem("nested too deep", where=where or name)) from deep
    if error is None:
        return
    place = "$" + prefix + error.json_path[1:]
    what = shorten(error.message, _MESSAGE_LENGTH, placeholder=" ...")
    remedy = _meant(error)
    raise DocumentError(
        problem(f"at {place}: {what}", where=where or f"{name} document", remedy=remedy)
    )


def _meant(error: ValidationError) -> str:
    """Which key, or which word, a document may have meant; empty where it is like none."""
    found: Any = error.instance
    rule: Any = error.validator_value
    schema: Any = error.schema
    if error.validator == "enum" and isinstance(found, str):
        return meant(found, rule) if nearest(found, map(str, rule)) else ""
    if error.validator not in ("additionalProperties", "required") or not isinstance(found, dict):
        return ""
    known = schema.get("properties", {})
    extra = [key for key in found if key not in known]
    absent = [key for key in known if key not in found]
    pairs = ((near, key) for key in extra if (near := nearest(key, absent)))
    return next((f"did you mean {near} by {key}?" for near, key in pairs), "")


def _is_array(_checker: Any, value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim == 1)


def _is_number(_checker: Any, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    # An integer beyond float64 is no number that anything here can hold.
    if isinstance(value, int):
        return abs(value) < 1 << 1023
    return isinstance(value, float) and math.isfinite(value)


def _is_integer(checker: Any, value: Any) -> bool:
    return _is_number(checker, value) and value == int(value)


def _items(
    validator: Any, items: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not isinstance(instance, np.ndarray):
        yield from Draft202012Validator.VALIDATORS["items"](validator, items, instance, schema)
    elif instance.ndim != 1:
        return  # not an array of JSON; `type` says so
    elif _extremes_suffice(items, instance):
        # argmin and argmax stop at the first NaN, and an infinity is an extreme.
        for index in sorted({int(instance.argmin()), int(instance.argmax())}):
            yield from validator.descend(instance[index].item(), items, path=index)
    else:
        for index, value in enumerate(instance.tolist()):
            yield from validator.descend(value, items, path=index)


def _extremes_suffice(items: Any, vector: np.ndarray) -> bool:
    if not isinstance(items, dict) or not vector.size or not set(items) <= _MONOTONE:
        return False
    return vector.dtype.kind in "iu" or (vector.dtype.kind == "f" and items.get("type") == "number")


_TYPES = Draft202012Validator.TYPE_CHECKER.redefine_many(
    {"array": _is_array, "number": _is_number, "integer": _is_integer}
)
_extend: Any = extend  # untyped in jsonschema
_Validator = _extend(Draft202012Validator, {"items": _items}, type_checker=_TYPES)
