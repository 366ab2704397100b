"""What `torch.save` wrote, read as data with the headers of tensors in place of their numbers.

The pickle is run as in `prunecli.checkpoint.torch_files`, and what it says is compared with what
the file holds in the same way, but without torch: no number is looked at.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.checkpoint.headers import BITS, TensorHeader, contiguous_strides
from prunecli.checkpoint.inert import InertUnpickler, Stub
from prunecli.checkpoint.pickle_scan import LEGACY_PICKLES, is_attack, unsafe_pickle
from prunecli.errors import first_line
from prunecli.files import TEXT_SHARE, BoundedReader, check_memory, check_plain, room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_PICKLE = "data.pkl"
_LARGEST_COUNT = 2**60
_CHUNK = 1 << 20


def zip_headers(path: Path) -> Any:
    """Return what is in a file of the current format; raises as `torch_files.read_zip`."""
    check_plain(path)
    with zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        check_memory(sum(sizes.values()), path, what="unpacking the file")
        name = next((name for name in sizes if name.partition("/")[2] == _PICKLE), _PICKLE)
        data = f"{name.removesuffix(_PICKLE)}data/"
        check_memory(sizes.get(name, 0), path, what="its description", share=TEXT_SHARE)
        text = archive.read(name)

        def held(key: str, _: int) -> int:
            if f"{data}{key}" not in sizes:
                raise ValueError(f"storage {key!r} is missing")
            return sizes[f"{data}{key}"]

        reader = BoundedReader(io.BytesIO(text), size=len(text), path=path, share=TEXT_SHARE)
        value = _HeaderUnpickler(reader, path=path, held=held).checked()
        _check_sums(archive)
    return value


def legacy_headers(path: Path) -> Any:
    """Return what is in a file of torch before 1.6; raises as `torch_files.read_legacy`."""
    size = check_plain(path)
    storages: dict[str, int] = {}

    def held(key: str, wanted: int) -> int:
        storages[key] = wanted
        if sum(storages.values()) > size:
            raise ValueError(f"it asks for more bytes of numbers than the {size:,} in all")
        return wanted

    with path.open("rb") as file:
        reader = BoundedReader(file, size=size, path=path, share=TEXT_SHARE)
        runs = [_HeaderUnpickler(reader, path=path, held=held) for _ in range(LEGACY_PICKLES)]
        *_, value, keys = [run.checked() for run in runs]
        at = file.tell()
        for key in keys:
            file.seek(at)
            count = int.from_bytes(file.read(8), "little", signed=True)
            wanted = storages.pop(str(key))
            if count < 0 or (wanted and wanted % max(count, 1)):
                raise ValueError(f"storage {key!r} has {count:,} numbers, and should have others")
            at += 8 + wanted
    if storages:
        raise ValueError(f"{len(storages)} storages are missing")
    if at > size:
        raise EOFError(f"{at - size:,} bytes of numbers are missing")
    return value


def _check_sums(archive: zipfile.ZipFile) -> None:
    """Raise `ValueError` for an archive with a member that is not what was once written."""
    for member in archive.infolist():
        try:
            with archive.open(member) as stream:
                while stream.read(_CHUNK):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{member.filename}: {first_line(error)}") from error


@dataclass(frozen=True)
class _Storage:
    """So many bytes from `start` on in a storage, and the type of its numbers."""

    key: str
    start: int
    bytes: int
    dtype: str


@dataclass(frozen=True)
class _Dtype:
    """A type of numbers by its name."""

    name: str


class _HeaderUnpickler(InertUnpickler):
    """Runs one pickle of a torch file; `held` gives the bytes of a storage by its key."""

    def __init__(
        self, reader: BoundedReader, *, path: Path, held: Callable[[str, int], int]
    ) -> None:
        functions = {
            **_NAMED,
            "torch._tensor._rebuild_from_type_v2": self._of_type,
            **dict.fromkeys(
                ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), self._tensor
            ),
            "torch._utils._rebuild_tensor_v3": self._typed_tensor,
        }
        super().__init__(
            reader, functions=functions, most=min(reader.left, room(path) // TEXT_SHARE)
        )
        self.path = path
        self._held = held
        self._known: dict[str, int] = {}
        self._tensors: dict[tuple[Any, ...], int] = {}

    def checked(self) -> Any:
        """Return what the pickle holds, once its tensors fit into memory and nothing attacks."""
        try:
            value = self.load()
        except Exception:
            self._refuse_attacks()
            raise
        self._refuse_attacks()
        check_memory(sum(self._tensors.values()), self.path, what="holding its tensors")
        return value

    def _refuse_attacks(self) -> None:
        if attacks := [name for name in self.imported if is_attack(name)]:
            raise unsafe_pickle(self.path, attacks)

    def persistent_load(self, reference: Any) -> Any:
        """Return a storage, once it agrees with what the file holds of it."""
        parts = reference if isinstance(reference, tuple) and len(reference) < 8 else ()
        if len(parts) > 1 and parts[0] == "module":
            return parts[1]  # a class, in the legacy format
        if len(parts) < 5 or parts[0] != "storage":
            raise ValueError("it refers to something that is no storage")
        _, kind, key, _, count, *view = parts
        dtype = _STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Stub) else None
        if dtype is None or not isinstance(key, str | int) or not _is_count(count):
            raise ValueError("it describes a storage of no known kind or size")
        name, wanted = str(key), count * _itemsize(dtype)
        if name not in self._known:
            self._known[name] = self._held(name, wanted)
        if wanted > self._known[name]:
            raise ValueError(f"storage {name!r} has {self._known[name]:,} bytes, not {wanted:,}")
        if not view or view[0] is None:
            return _Storage(name, 0, self._known[name], dtype)
        _, start, length = view[0]
        if not (_is_count(start) and _is_count(length) and start + length <= count):
            raise ValueError(f"a part of storage {name!r} lies beyond it")
        return _Storage(name, start * _itemsize(dtype), length * _itemsize(dtype), dtype)

    def _of_type(self, function: Any, _kind: Any, arguments: Any, *_: Any) -> Any:
        """Return a tensor of a subclass as a plain one."""
        return self.call(function, arguments)

    def _typed_tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any,
        *_: Any,
    ) -> TensorHeader:  # fmt: skip
        if not (isinstance(storage, _Storage) and isinstance(kind, _Dtype)):
            raise pickle.UnpicklingError("a tensor has no storage or no known type")
        typed = _Storage(storage.key, storage.start, storage.bytes, kind.name)
        return self._tensor(typed, offset, size, stride)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = False,
        _hooks: Any = None, metadata: Any = None, *_: Any,
    ) -> TensorHeader:  # fmt: skip
        """Return the header of a tensor over a storage, once it lies within."""
        numbers = (offset, *size, *stride)
        if not isinstance(storage, _Storage) or len(size) != len(stride):
            raise ValueError("a tensor has no storage, or a size of other sides than its steps")
        if not all(map(_is_count, numbers)):
            raise ValueError("the size of a tensor is no list of whole numbers")
        if metadata:
            raise ValueError("a tensor is stored conjugated or negated")
        count, item = math.prod(size), _itemsize(storage.dtype)
        steps = (step * (side - 1) for side, step in zip(size, stride, strict=True))
        end = offset + sum(steps) + 1 if count else 0
        if end * item > storage.bytes:
            raise ValueError(
                f"a tensor of size {list(size)} needs {end * item:,} bytes of storage "
                f"{storage.key!r}, which has {storage.bytes:,}"
            )
        shape, strides = tuple(size), tuple(stride)
        self._tensors[storage.key, storage.start, offset, shape, strides] = count * item
        whole = strides == contiguous_strides(shape)
        place = (storage.key, storage.start + offset * item) if whole else None
        return TensorHeader(storage.dtype, shape, place)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_COUNT


def _itemsize(dtype: str) -> int:
    return BITS.get(dtype, 8) // 8


def _data_of(data: Any = None, *_: Any) -> Any:
    """Return the tensor of a parameter or of another device."""
    return data


_STORAGES = {
    "BFloat16Storage": "bfloat16", "BoolStorage": "bool", "ByteStorage": "uint8",
    "CharStorage": "int8", "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "IntStorage": "int32", "LongStorage": "int64", "QInt32Storage": "qint32",
    "QInt8Storage": "qint8", "QUInt2x4Storage": "quint2x4", "QUInt4x2Storage": "quint4x2",
    "QUInt8Storage": "quint8", "ShortStorage": "int16", "UntypedStorage": "uint8",
}  # fmt: skip
"""What the numbers in each kind of storage are."""

_NAMED: Mapping[str, Any] = {
    "torch.Size": lambda sides=(): tuple(sides),
    **dict.fromkeys(
        ("torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer",
         "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
         "torch._utils._rebuild_device_tensor_from_cpu_tensor"), _data_of,
    ),
    "torch._utils._rebuild_qtensor": lambda storage, _, size, *__: TensorHeader(
        storage.dtype, tuple(size)
    ),
    "torch._utils._rebuild_sparse_tensor": lambda *_: TensorHeader("sparse", ()),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: TensorHeader("meta", ()),
    **{f"torch.{name}": _Dtype(name) for name in BITS},
}  # fmt: skip
"""What a torch file may call or name, besides the tensors themselves."""
