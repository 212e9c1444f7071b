"""JSON Schemas: where they lie, and documents checked against them.

A document may hold NumPy vectors where its schema says array: a vector of numbers is checked as a
whole, so that a config of 14 million shifts is validated in a fraction of a second. NaN and the
infinities are no JSON numbers and are refused.

What a schema says is first asked of functions made of it, which know yes and no. Only where these
say no, or the schema has a keyword that they do not know, jsonschema looks, and its word counts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeAlias

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
_TOO_LARGE = 1 << 1023
# Keywords that refuse nothing.
_SAID = {"$schema", "$id", "$defs", "title", "description"}

_Check: TypeAlias = Callable[[Any], bool]
_Part: TypeAlias = Callable[[Any], tuple[_Check, ...]]


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
    if not _fits(name, "", document):
        _raise_first(name, _validator(name, "").iter_errors(document), where)


def validate_member(name: str, member: str, key: str, value: Any, *, where: str = "") -> None:
    """Check one entry of the object `member` of a document, as `validate` would in the whole.

    Raises
    ------
    DocumentError
        ``document[member][key] = value`` does not fit.
    """
    entry = {key: value}
    if not _fits(name, member, entry):
        _raise_first(name, _validator(name, member).iter_errors(entry), where, prefix=f".{member}")


def _fits(name: str, member: str, value: Any) -> bool:
    """Whether a document, or a member of one, is known to fit; False: jsonschema has to say."""
    try:
        return all(check(value) for check in _checks(name, member))
    except RecursionError:
        return False


@cache
def _checks(name: str, member: str) -> tuple[_Check, ...]:
    validator = _validator(name, member)
    return _checks_of(validator.schema, validator)


def _checks_of(schema: Any, validator: Any) -> tuple[_Check, ...]:
    """Functions that are all true of a value only if it fits a schema."""
    if not isinstance(schema, dict):
        return () if schema is True else (_unknown,)
    if "$ref" in schema:  # these may nest without end, which jsonschema notices
        return (validator.evolve(schema=schema).is_valid,)
    made = (
        _KEYWORDS[word](rule, schema, lambda part: _checks_of(part, validator))
        if word in _KEYWORDS
        else _unknown
        for word, rule in schema.items()
        if word not in _SAID
    )
    return tuple(made)


def _unknown(value: Any) -> bool:
    return False


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
        return -_TOO_LARGE < value < _TOO_LARGE
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


def _typed(rule: Any, schema: Any, part: _Part) -> _Check:
    names = [rule] if isinstance(rule, str) else rule
    tests = [_IS[name] for name in names]
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _members(rule: Any, schema: Any, part: _Part) -> _Check:
    known = {key: part(entry) for key, entry in rule.items()}

    def fits(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        return all(
            all(check(value[key]) for check in checks)
            for key, checks in known.items()
            if key in value
        )

    return fits


def _others(rule: Any, schema: Any, part: _Part) -> _Check:
    if "patternProperties" in schema:
        return _unknown
    known, checks = schema.get("properties", {}), part(rule)
    if rule is False:
        return lambda value: not isinstance(value, dict) or value.keys() <= known.keys()

    def fits(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        return all(
            check(entry) for key, entry in value.items() if key not in known for check in checks
        )

    return fits


def _keys(rule: Any, schema: Any, part: _Part) -> _Check:
    checks = part(rule)
    return lambda value: (
        not isinstance(value, dict) or all(check(key) for key in value for check in checks)
    )


def _required(rule: Any, schema: Any, part: _Part) -> _Check:
    return lambda value: not isinstance(value, dict) or all(key in value for key in rule)


def _pattern(rule: Any, schema: Any, part: _Part) -> _Check:
    search = re.compile(rule).search
    return lambda value: not isinstance(value, str) or search(value) is not None


def _elements(rule: Any, schema: Any, part: _Part) -> _Check:
    checks = part(rule)

    def fits(value: Any) -> bool:
        if isinstance(value, np.ndarray) and value.ndim == 1 and _extremes_suffice(rule, value):
            ends = {int(value.argmin()), int(value.argmax())}
            return all(check(value[end].item()) for end in ends for check in checks)
        if isinstance(value, list):
            return all(check(entry) for entry in value for check in checks)
        return not isinstance(value, np.ndarray)

    return fits


def _of_numbers(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any, _Part], _Check]:
    return lambda rule, schema, part: lambda value: not _is_number(None, value) or test(value, rule)


def _equal(rule: Any, schema: Any, part: _Part) -> _Check:
    # Of numbers, JSON and Python differ in what is equal.
    words = [word for word in rule if isinstance(word, str)]
    return lambda value: isinstance(value, str) and value in words


_IS: dict[str, _Check] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: _is_array(None, value),
    "number": lambda value: _is_number(None, value),
    "integer": lambda value: _is_integer(None, value),
}
_KEYWORDS: dict[str, Callable[[Any, Any, _Part], _Check]] = {
    "type": _typed,
    "properties": _members,
    "additionalProperties": _others,
    "propertyNames": _keys,
    "required": _required,
    "pattern": _pattern,
    "items": _elements,
    "const": lambda rule, schema, part: _equal([rule], schema, part),
    "enum": _equal,
    "minimum": _of_numbers(lambda value, end: bool(value >= end)),
    "maximum": _of_numbers(lambda value, end: bool(value <= end)),
    "exclusiveMinimum": _of_numbers(lambda value, end: bool(value > end)),
    "exclusiveMaximum": _of_numbers(lambda value, end: bool(value < end)),
    "minItems": lambda rule, schema, part: (
        lambda value: not _is_array(None, value) or len(value) >= rule
    ),
    "minLength": lambda rule, schema, part: (
        lambda value: not isinstance(value, str) or len(value) >= rule
    ),
}
"""What makes a function of a keyword: of its value, the schema it stands in, and of parts of it."""
