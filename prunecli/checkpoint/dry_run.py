"""What a checkpoint of `torch.save` would hold and allocate, found by unpickling it into nothing.

Its pickle is run with inert stand-ins in place of everything that it names, so that nothing is
imported, called or allocated. What is left are plain data, and the storages and the tensors that it
asks for; these are compared with what the file holds. torch itself believes the pickle.
"""

from __future__ import annotations

import math
import pickle  # only the machine in Python, with stand-ins for all that it could call
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prunecli.checkpoint.headers import BITS, TensorHeader, contiguous_strides
from prunecli.checkpoint.pickle_scan import LEGACY_PICKLES
from prunecli.errors import first_line
from prunecli.files import TEXT_SHARE, BoundedReader, check_memory, check_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_PICKLE = "data.pkl"
_LEGACY_VALUE = 3  # of the pickles, behind magic number, protocol and system
_LARGEST_KEY = 64
"""Items of a tuple that is a key; nested tuples take for ever to hash."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Held:
    """What a file holds, with a `TensorHeader` in place of every tensor.

    `called` are the names of unknown things that its pickle calls.
    """

    value: Any
    called: tuple[str, ...]


def check_zip(path: Path) -> Held:
    """Return what an archive holds; raise where it asks for more than that.

    Raises `LoadRefusedError` (`FILE_TOO_LARGE`) for more memory than is allowed; `ValueError`,
    `pickle.UnpicklingError`, `zipfile.BadZipFile` and many others for damage.
    """
    check_plain(path)
    with zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        check_memory(sum(sizes.values()), path, what="unpacking the file")
        name = next((name for name in sizes if name.partition("/")[2] == _PICKLE), _PICKLE)
        data = f"{name.removesuffix(_PICKLE)}data/"
        held = {key.removeprefix(data): size for key, size in sizes.items() if key.startswith(data)}
        with archive.open(name) as stream:
            run = _DryRun(
                BoundedReader(stream, size=sizes[name], path=path, share=TEXT_SHARE), held=held
            )
            value = run.load()
    check_memory(run.tensors_bytes, path, what="holding its tensors")
    return Held(value, tuple(run.called))


def check_legacy(path: Path) -> Held:
    """Return what a file of torch before 1.6 holds; see `check_zip`."""
    size = check_plain(path)
    with path.open("rb") as file:
        reader = BoundedReader(file, size=size, path=path, share=TEXT_SHARE)
        total, asked = 0, 0
        values: list[Any] = []
        called: list[str] = []
        for _ in range(LEGACY_PICKLES):
            run = _DryRun(reader, held=None)
            values.append(run.load())
            called += run.called
            total, asked = total + run.tensors_bytes, asked + run.storage_bytes
    if asked > size:
        raise ValueError(f"it asks for {asked:,} bytes of numbers and has {size:,} in all")
    check_memory(total, path, what="holding its tensors")
    return Held(values[_LEGACY_VALUE], tuple(called))


def check_crc(path: Path) -> None:
    """Raise `ValueError` for an archive with a member that is not what was once written.

    torch does not compare: a bit that flipped in the weights would go unnoticed.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            try:
                with archive.open(member) as stream:
                    while stream.read(_CHUNK):
                        pass
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ValueError(f"{member.filename}: {first_line(error)}") from error


class _Thing:
    """Stands for an object of any class: takes whatever a pickle does to it, and keeps its state.

    `of` is the class by the name that the pickle has for it. An object is made without a call of
    its class; `called` notes calls.
    """

    of: ClassVar[str] = ""
    called: ClassVar[list[str] | None] = None
    state: Any = None

    def __init__(self, *_: Any, **__: Any) -> None:
        if self.called is not None:
            self.called.append(self.of)

    def __call__(self, *_: Any, **__: Any) -> _Thing:
        return _Thing()

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


class _Named(_Thing):
    """Stands for something that is imported, and keeps its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class _Storage(_Thing):
    """Stands for a storage of so many bytes."""

    def __init__(self, key: str, count: int, dtype: str) -> None:
        super().__init__()
        self.key, self.dtype, self.bytes = key, dtype, count * _itemsize(dtype)


def module_class(value: Any) -> str | None:
    """Return the class of a whole pickled module by its name; None for anything else."""
    return value.of if _parts(value) is not None else None


def module_tensors(module: Any) -> dict[str, TensorHeader]:
    """Return the tensors of a whole pickled module, under the names of its state dict."""
    found: dict[str, TensorHeader] = {}
    seen: set[int] = set()
    waiting = [("", module)]
    while waiting:
        path, current = waiting.pop()
        parts = _parts(current)
        if parts is None or id(current) in seen:
            continue
        seen.add(id(current))
        own = {**parts["_parameters"], **(_plain(parts.get("_buffers")) or {})}
        left_out = parts.get("_non_persistent_buffers_set")
        names = left_out if isinstance(left_out, set) else set()
        found |= {
            f"{path}{name}": item
            for name, item in own.items()
            if isinstance(item, TensorHeader) and name not in names
        }
        inner = ((f"{path}{name}.", item) for name, item in parts["_modules"].items())
        waiting += reversed(list(inner))
    return found


def _parts(value: Any) -> Mapping[str, Any] | None:
    """Return the state of what was pickled as a module; None where it was something else."""
    state = _plain(value.state) if isinstance(value, _Thing) else None
    has_parts = state is not None and all(
        isinstance(state.get(name), dict) for name in ("_parameters", "_modules")
    )
    return state if has_parts else None


def _plain(value: Any) -> Mapping[str, Any] | None:
    return value if isinstance(value, dict) else None


class _DryRun(pickle._Unpickler):  # noqa: SLF001 - in Python
    """Runs one pickle; `held` are the bytes of the archive's members, by the key of a storage."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001

    stack: list[Any]

    def __init__(self, reader: BoundedReader, *, held: Mapping[str, int] | None) -> None:
        super().__init__(reader, encoding="latin1")
        self.held = held
        self.storages: dict[str, int] = {}
        self.tensors: dict[tuple[Any, ...], int] = {}
        self.called: list[str] = []

    @property
    def storage_bytes(self) -> int:
        """Bytes of all storages, each once."""
        return sum(self.storages.values())

    @property
    def tensors_bytes(self) -> int:
        """Bytes of all tensors with every number written out, equal ones once."""
        return sum(self.tensors.values())

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for what would be imported."""
        full = f"{module}.{name}"
        if full in _PLAIN:
            return _PLAIN[full]
        if full in _REBUILDS:
            return getattr(self, _REBUILDS[full])
        if name.endswith("Storage") or module == "torch":
            return _Named(name)
        return type("_Thing", (_Thing,), {"of": full, "called": self.called})

    def persistent_load(self, reference: Any) -> Any:
        """Return the stand-in of a storage, once it agrees with what the file holds of it."""
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            kind = reference[1] if isinstance(reference, tuple) and len(reference) > 1 else None
            is_class = isinstance(kind, type) and issubclass(kind, _Thing)
            return kind if is_class else _Thing  # of a module, in the legacy format
        _, kind, key, _, count = reference[:5]
        if type(count) is not int or count < 0:
            raise ValueError(f"storage {key!r} has {count!r} numbers")
        storage = _Storage(str(key), count, _dtype(getattr(kind, "name", "")))
        held = storage.bytes if self.held is None else self.held.get(storage.key)
        if held is None:
            raise ValueError(f"storage {key!r} is missing")
        if storage.bytes > held:
            raise ValueError(f"storage {key!r} has {held:,} bytes, not {storage.bytes:,}")
        self.storages[storage.key] = storage.bytes
        return storage

    def rebuild(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        """Note a tensor, once it lies within its storage."""
        if isinstance(storage, _Storage):
            return self._noted(storage, storage.dtype, offset, tuple(size), tuple(stride))
        return _Thing()

    def rebuild_typed(
        self, storage: Any, offset: Any, size: Any, stride: Any, _: Any, __: Any, kind: Any,
        *___: Any,
    ) -> Any:  # fmt: skip
        """Note a tensor of a type of its own."""
        if isinstance(storage, _Storage):
            dtype = _dtype(getattr(kind, "name", ""))
            return self._noted(storage, dtype, offset, tuple(size), tuple(stride))
        return _Thing()

    @staticmethod
    def parameter(data: Any = None, *_: Any) -> Any:
        """Return the tensor of a parameter."""
        return data

    @staticmethod
    def rebuild_by(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
        """Call what rebuilds a tensor of a subclass."""
        return function(*arguments)

    @staticmethod
    def array_of_bytes(content: Any = b"", *_: Any) -> _Thing:
        """Refuse the bytes that a number asks for."""
        if isinstance(content, int):
            raise ValueError(f"it asks for {content:,} bytes that it does not have")  # noqa: TRY004
        return _Thing()

    @staticmethod
    def set_of(items: Any = (), *_: Any) -> Any:
        """Return a set of names; refuse one that takes for ever to build."""
        for item in items:
            _check_key(item)
        return set(items) if all(isinstance(item, str) for item in items) else _Thing()

    def _noted(
        self, storage: _Storage, dtype: str, offset: Any, size: tuple[Any, ...],
        stride: tuple[Any, ...],
    ) -> TensorHeader:  # fmt: skip
        itemsize = _itemsize(dtype)
        numbers = (offset, *size, *stride)
        if any(type(one) is not int or one < 0 for one in numbers) or len(size) != len(stride):
            raise ValueError(f"a tensor of size {size}, stride {stride}, offset {offset}")
        count = math.prod(size)
        steps = (s * (n - 1) for n, s in zip(size, stride, strict=True))
        end = offset + sum(steps) + 1 if count else 0
        if end * itemsize > storage.bytes:
            raise ValueError(
                f"a tensor of size {list(size)} needs {end * itemsize:,} bytes of storage "
                f"{storage.key!r}, which has {storage.bytes:,}"
            )
        self.tensors[storage.key, offset, size, stride] = count * itemsize
        whole = stride == contiguous_strides(size)
        return TensorHeader(dtype, size, (storage.key, offset * itemsize) if whole else None)

    def _set_item(self) -> None:
        _check_key(self.stack[-2])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def _set_items(self) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def _make_dict(self) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def _add_items(self) -> None:
        for key in self.stack:
            _check_key(key)
        pickle._Unpickler.load_additems(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def _freeze(self) -> None:
        for key in self.stack:
            _check_key(key)
        pickle._Unpickler.load_frozenset(self)  # type: ignore[attr-defined]  # noqa: SLF001

    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _freeze


_PLAIN: Mapping[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": tuple,
    "builtins.bytearray": _DryRun.array_of_bytes,
    "builtins.set": _DryRun.set_of,
    "__builtin__.set": _DryRun.set_of,
    "torch._tensor._rebuild_from_type_v2": _DryRun.rebuild_by,
    "torch._utils._rebuild_parameter": _DryRun.parameter,
    "torch._utils._rebuild_parameter_with_state": _DryRun.parameter,
}

_REBUILDS: Mapping[str, str] = {
    "torch._utils._rebuild_tensor": "rebuild",
    "torch._utils._rebuild_tensor_v2": "rebuild",
    "torch._utils._rebuild_tensor_v3": "rebuild_typed",
    "torch._utils._rebuild_qtensor": "rebuild",
}


def _check_key(key: Any) -> None:
    """Raise `ValueError` for what is no plain key: hashing nested tuples takes for ever."""
    inside = key if isinstance(key, tuple) else ()
    if len(inside) > _LARGEST_KEY or any(isinstance(item, tuple | frozenset) for item in inside):
        raise ValueError("one of its keys is neither a name nor a number")


_STORAGES = {
    "BFloat16Storage": "bfloat16", "BoolStorage": "bool", "ByteStorage": "uint8",
    "CharStorage": "int8", "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "IntStorage": "int32", "LongStorage": "int64", "QInt32Storage": "qint32",
    "QInt8Storage": "qint8", "QUInt2x4Storage": "quint2x4", "QUInt4x2Storage": "quint4x2",
    "QUInt8Storage": "quint8", "ShortStorage": "int16", "UntypedStorage": "uint8",
}  # fmt: skip
"""The type of the numbers in each kind of storage."""


def _dtype(name: str) -> str:
    """Return the type of numbers that a storage or a type goes by."""
    return _STORAGES.get(name, name)


def _itemsize(dtype: str) -> int:
    """Return the bytes of one number of a type; 1 for an unknown one."""
    return BITS.get(dtype, 8) // 8
