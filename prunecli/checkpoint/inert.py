"""Run a pickle as data: whatever it would import, make or call becomes an inert record.

Training scripts save paths, options and whole modules beside their weights. A pickle names the
classes of these and says how to call them; here the names stay names (`Stub`), and only a table of
functions that build plain data is ever called. So nothing in a file can run, whatever it holds.
"""

from __future__ import annotations

import pickle  # only the machine in Python, with records for all that it could call
import re
import struct
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prunecli.files import BoundedReader

_LARGEST_KEY = 64
"""Items of a tuple that is a key; nested tuples take for ever to hash."""

_LARGEST_NUMBER = 2**60
"""Whole numbers from about here on can be chosen to have all the same hash."""

_MOST_ITEMS = 2_000_000
_LONGEST_NAME = 1000

_COPIED = (str, bytes, bytearray, tuple, list, dict, set)

_MAKERS = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor"})
"""How the oldest protocols make an object: of a class, its plain base, and what that base holds."""


_OF_PYTHON = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "PERSID", "BINPERSID"),
    *("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "EMPTY_DICT"),
    *("EMPTY_SET", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
)
"""Opcodes that only handle plain data or go through the methods above; the rest are refused."""


class Stub:
    """What stands for an imported name, or for an object made with it, and cannot do anything.

    `name` is `package.module.name`; `arguments` is what it would have been called with, `state`
    what its attributes would have been set from, `entries` and `members` what was put into it as
    into a dict or a list.
    """

    __slots__ = ("arguments", "entries", "members", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.entries: dict[Any, Any] | None = None
        self.members: list[Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def made(self, arguments: tuple[Any, ...]) -> Stub:
        """Return the record of an object that this would have made."""
        if self.name in _MAKERS and arguments and isinstance(arguments[0], Stub):
            return Stub(arguments[0].name, arguments[2:3])
        return Stub(self.name, arguments)

    @property
    def fields(self) -> Mapping[Any, Any]:
        """Return its entries, or else its attributes by name; nothing where it has neither."""
        if self.entries:
            return self.entries
        # A class may save its attributes beside what its slots hold, or have a maker take them.
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        first = self.arguments[0] if self.arguments else None
        return next((each for each in (state, first) if isinstance(each, dict)), {})


class InertUnpickler(pickle._Unpickler):  # noqa: SLF001 - in Python
    """Runs one pickle in bounded time and memory; `functions` are all that it may call, by name.

    `most` bounds what these functions may copy: a pickle can hand the same list to them again and
    again. `imported` has every name that the pickle asked for. Raises whatever there is to raise on
    bytes that are no pickle.
    """

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: pickle._Unpickler.dispatch[code]  # noqa: SLF001
        for code in (getattr(pickle, name)[0] for name in _OF_PYTHON)
    }

    stack: list[Any]
    metastack: list[list[Any]]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def __init__(self, reader: BoundedReader, *, functions: Mapping[str, Any], most: int) -> None:
        super().__init__(reader, encoding="latin1")
        self.functions = {**PLAIN, **functions}
        self._callable = {id(function) for function in self.functions.values()}
        self._left = most
        self.imported: dict[str, None] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the function of the table, or a record of the name."""
        if len(module) + len(name) > _LONGEST_NAME:
            raise pickle.UnpicklingError("it has a name that no package has")
        full = f"{module}.{name}"
        self.imported[full] = None
        return self.functions[full] if full in self.functions else Stub(full)

    def call(self, function: Any, arguments: Any) -> Any:
        """Return what a function of the table makes, or the record of a call."""
        if type(arguments) is not tuple:
            raise pickle.UnpicklingError("it calls something with no list of arguments")
        if isinstance(function, Stub):
            return function.made(arguments)
        if id(function) not in self._callable:
            raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")
        self._left -= sum(len(each) for each in arguments if isinstance(each, _COPIED))
        if self._left < 0:
            raise pickle.UnpicklingError("it copies the same data over and over")
        return function(*arguments)

    def build(self, target: Any, state: Any) -> None:
        """Keep the state of a record; attributes of plain data are no part of its values."""
        if isinstance(target, Stub):
            target.state = state

    def _instantiate(self, function: Any, arguments: list[Any]) -> None:
        self.append(self.call(function, tuple(arguments)))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def _new_with_keywords(self) -> None:
        keywords, arguments = self.stack.pop(), self.stack.pop()
        if keywords and not isinstance(self.stack[-1], Stub):
            raise pickle.UnpicklingError("it calls a function with keywords")
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)

    def _put(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Stub):
            target.entries = {} if target.entries is None else target.entries
            target = target.entries
        if not isinstance(target, dict):
            raise pickle.UnpicklingError(f"it puts an entry into a {type(target).__name__}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            check_key(key)
            target[key] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _set_items(self) -> None:
        self._put(self._marked())

    def _make_dict(self) -> None:
        pairs = self._marked()
        self.append({})
        self._put(pairs)

    def _add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target |= set_of(items)
            return
        if isinstance(target, Stub):
            target.members = [] if target.members is None else target.members
            target = target.members
        if type(target) is not list:
            raise pickle.UnpicklingError(f"it appends to a {type(target).__name__}")
        target += items

    def _append(self) -> None:
        self._add([self.stack.pop()])

    def _extend(self) -> None:
        self._add(self._marked())

    def _freeze(self) -> None:
        self.append(_frozen(self._marked()))

    def _bytearray(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def _marked(self) -> list[Any]:
        """Return what stands on the stack behind the last mark, and take it off."""
        items = self.stack
        self.stack = self.metastack.pop()
        self.append = self.stack.append
        return items

    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _reduce
    dispatch[pickle.NEWOBJ_EX[0]] = _new_with_keywords
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.APPEND[0]] = _append
    dispatch[pickle.APPENDS[0]] = _extend
    dispatch[pickle.ADDITEMS[0]] = _extend
    dispatch[pickle.FROZENSET[0]] = _freeze
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray


def check_key(key: Any) -> None:
    """Raise `ValueError` for what is no plain key: some take for ever to hash or to tell apart."""
    inside = key if isinstance(key, tuple) else (key,)
    if (
        len(inside) > _LARGEST_KEY
        or (inside is key and any(isinstance(item, tuple | frozenset) for item in inside))
        or any(isinstance(item, int) and abs(item) >= _LARGEST_NUMBER for item in inside)
    ):
        raise ValueError("one of its keys is neither a name nor a number")


def is_json(value: Any) -> bool:
    """Tell whether something is plain data of a size that can be written out as JSON.

    A pickle can refer to one list many times: a small one may hold 2^60 lists when written out.
    """
    waiting, count = [value], 0
    while waiting:
        item = waiting.pop()
        count += 1
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                return False
            waiting += item.values()
        elif isinstance(item, list | tuple):
            waiting += item
        elif not (item is None or isinstance(item, str | int | float)):
            return False
        if count + len(waiting) > _MOST_ITEMS:
            return False
    return True


def set_of(items: Iterable[Any] = ()) -> set[Any]:
    """Return a set of plain keys."""
    for item in items:
        check_key(item)
    return set(items)


def _frozen(items: Iterable[Any] = ()) -> frozenset[Any]:
    return frozenset(set_of(items))


def _ordered(pairs: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    found: OrderedDict[Any, Any] = OrderedDict()
    for key, value in pairs:
        check_key(key)
        found[key] = value
    return found


def _counter(counts: Any = ()) -> dict[Any, Any]:
    return dict(counts) if isinstance(counts, dict) else {}


def _with_default(_factory: Any = None) -> dict[Any, Any]:
    return {}


def _array_of_bytes(content: Any = b"", encoding: str = "latin1") -> bytearray:
    """Return the bytes of a pickle; refuse those that a number asks for."""
    if isinstance(content, int):
        raise ValueError(f"it asks for {content:,} bytes that it does not have")  # noqa: TRY004
    return bytearray(_encoded(content, encoding) if isinstance(content, str) else content)


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes that an old protocol keeps as text."""
    if encoding not in {"latin1", "latin-1", "utf-8", "ascii"}:
        raise ValueError("it has bytes in an encoding that no pickle uses")
    return text.encode(encoding)


_NUMBER = re.compile(r"[fiu][1248]|b1")


def _numpy_number(kind: Any, content: Any) -> Any:
    """Return the number that numpy would make of some bytes; a record for any other kind."""
    name = kind.arguments[0] if isinstance(kind, Stub) and kind.arguments else None
    if not (isinstance(name, str) and _NUMBER.fullmatch(name)):
        return Stub("numpy.generic")
    order = kind.state[1] if isinstance(kind.state, tuple) and len(kind.state) > 1 else "<"
    raw = content.encode("latin1") if isinstance(content, str) else content
    (number,) = np.frombuffer(raw, np.dtype(name).newbyteorder(">" if order == ">" else "<"))
    return number.item()


PLAIN: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "collections.defaultdict": _with_default,
    **dict.fromkeys(("builtins.set", "__builtin__.set"), set_of),
    **dict.fromkeys(("builtins.frozenset", "__builtin__.frozenset"), _frozen),
    **dict.fromkeys(("builtins.bytearray", "__builtin__.bytearray"), _array_of_bytes),
    "_codecs.encode": _encoded,
    "numpy.core.multiarray.scalar": _numpy_number,
    "numpy._core.multiarray.scalar": _numpy_number,
}
"""Functions that build plain data, by the names under which a pickle asks for them."""
