"""Prompts that a source keeps as a pickled array: read as data, never unpickled.

`pickled_strings` walks the opcodes of a pickle and accepts exactly what NumPy writes for an object
array of `str`; nothing is imported and nothing is called.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from taqstore.errors import SourceError
from taqstore.files.refusal import problem

REMEDY = "pass --prompts FILE (.txt with one prompt per line, or .csv with a prompt column)"
_MARK = object()
_MULTIARRAY = frozenset({"numpy.core.multiarray", "numpy._core.multiarray"})
_PUSH = frozenset(
    {"BININT", "BININT1", "BININT2", "SHORT_BINBYTES", "BINBYTES"}
    | {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _RefusedError(Exception):
    """The pickle does something that an array of strings has no need of."""


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


@dataclass(eq=False)
class _Value:
    """An object under construction: the array, or its dtype."""

    kind: str
    state: Any = None


@dataclass
class _Machine:
    """A pickle machine without a `find_class`: a stack, a memo and the few opcodes needed."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in _PUSH:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise _RefusedError(f"opcode {name}")

    def since_mark(self) -> list[Any]:
        """Pop everything above the last mark."""
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise _RefusedError("no mark")

    def pop(self, count: int) -> tuple[Any, ...]:
        """Pop `count` values, in the order they were pushed."""
        if len(self.stack) < count:
            raise _RefusedError("empty stack")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top of the stack."""
        if not self.stack or not isinstance(self.stack[-1], list):
            raise _RefusedError("append to something else than a list")
        self.stack[-1].extend(items)

    def put(self, index: int) -> None:
        """Remember the top of the stack."""
        (self.memo[index],) = self.pop(1)
        self.stack.append(self.memo[index])

    def get(self, index: int) -> None:
        """Recall a remembered value."""
        if index not in self.memo:
            raise _RefusedError("unknown memo entry")
        self.stack.append(self.memo[index])

    def make_global(self, module: Any, name: Any) -> None:
        """Push a name; it is never looked up."""
        self.stack.append(_Global(str(module), str(name)))

    def reduce(self) -> None:
        """The three calls that such a pickle makes, recognised and not made."""
        function, arguments = self.pop(2)
        ndarray = _Global("numpy", "ndarray")
        if function == _Global("_codecs", "encode") and arguments == ("b", "latin1"):
            self.stack.append(b"b")
        elif function == _Global("numpy", "dtype") and arguments[:1] in (("O8",), ("O",)):
            self.stack.append(_Value("dtype"))
        elif (
            isinstance(function, _Global)
            and function.module in _MULTIARRAY
            and function.name == "_reconstruct"
            and arguments == (ndarray, (0,), b"b")
        ):
            self.stack.append(_Value("array"))
        else:
            raise _RefusedError(f"call of {function}")

    def build(self) -> None:
        """Give the array or the dtype its state."""
        target, state = self.pop(2)
        if not isinstance(target, _Value) or not isinstance(state, tuple):
            raise _RefusedError("state for something else than an array")
        target.state = state
        self.stack.append(target)


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda m, _: m.stack.append(_MARK),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.stack.append(m.pop(1)),
    "TUPLE2": lambda m, _: m.stack.append(m.pop(2)),
    "TUPLE3": lambda m, _: m.stack.append(m.pop(3)),
    "APPEND": lambda m, _: m.extend(list(m.pop(1))),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    "BINPUT": lambda m, index: m.put(index),
    "LONG_BINPUT": lambda m, index: m.put(index),
    "BINGET": lambda m, index: m.get(index),
    "LONG_BINGET": lambda m, index: m.get(index),
    "GLOBAL": lambda m, names: m.make_global(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.make_global(*m.pop(2)),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
}


def pickled_strings(data: bytes, *, where: str) -> list[str]:
    """Strings of a pickled one-dimensional NumPy object array (pickle protocols 2 to 5).

    Raises
    ------
    SourceError
        The pickle is anything else; it has not been executed.
    """
    machine = _Machine()
    stopped = False
    try:
        for opcode, argument, _ in pickletools.genops(data):
            stopped = opcode.name == "STOP"
            if not stopped:
                machine.step(opcode.name, argument)
        return _strings(machine.pop(1)[0] if stopped else None)
    except (_RefusedError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise SourceError(
            problem(
                "pickled object is not an array of strings and is never loaded",
                where=where,
                found=str(error),
                remedy=REMEDY,
            )
        ) from None


def _strings(array: Any) -> list[str]:
    match array:
        case _Value("array", (1, (int(count),), _Value("dtype"), False, [*items])):
            if count == len(items) and all(type(item) is str for item in items):
                return items
    raise _RefusedError("another structure")
