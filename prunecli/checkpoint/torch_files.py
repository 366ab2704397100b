"""Read what `torch.save` wrote, in either of its formats, without importing or running anything.

The pickle in the file is run as data (`prunecli.checkpoint.inert`). What it says of storages and
tensors is compared with what the file holds before anything is allocated: torch itself believes it.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prunecli.checkpoint.inert import InertUnpickler, Stub
from prunecli.checkpoint.pickle_scan import LEGACY_PICKLES, is_attack, unsafe_pickle
from prunecli.files import TEXT_SHARE, BoundedReader, check_memory, check_plain, room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_PICKLE = "data.pkl"
_LONGEST_KEY = 100
_CHUNK = 1 << 24


def read_zip(path: Path, stream: IO[bytes] | None = None) -> Any:
    """Return what is in a file of the current format; `stream` is its content where it is at hand.

    What it names of other packages is there as `Stub`. Raises `LoadRefusedError` (`FILE_TOO_LARGE`
    for more memory than is allowed, `UNSAFE_PICKLE` for the signs of an attack); `ValueError`,
    `pickle.UnpicklingError`, `zipfile.BadZipFile` and many others for damage.
    """
    if stream is None:
        check_plain(path)
    with zipfile.ZipFile(stream or path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        check_memory(sum(sizes.values()), path, what="unpacking the file")
        name = next((name for name in sizes if name.partition("/")[2] == _PICKLE), _PICKLE)
        folder = name.removesuffix(_PICKLE)
        check_memory(sizes.get(name, 0), path, what="its description", share=TEXT_SHARE)
        text = archive.read(name)
        swapped = sizes.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") == b"big"

        def storage(key: str, kind: torch.dtype, count: int) -> Tensor:
            member = f"{folder}data/{key}"
            if member not in sizes:
                raise ValueError(f"storage {key!r} is missing")
            wanted = count * kind.itemsize
            if wanted > sizes[member]:
                raise ValueError(f"storage {key!r} has {sizes[member]:,} bytes, not {wanted:,}")
            content = torch.empty(sizes[member], dtype=torch.uint8)
            with archive.open(member) as source:
                _fill(content, source)
            return _swapped(content, kind) if swapped else content

        reader = BoundedReader(io.BytesIO(text), size=len(text), path=path, share=TEXT_SHARE)
        return _Unpickler(reader, path=path, storage=storage).checked()


def read_legacy(path: Path) -> Any:
    """Return what is in a file of torch before 1.6: see `read_zip`."""
    size = check_plain(path)
    storages: dict[str, tuple[Tensor, torch.dtype]] = {}
    asked = 0

    def storage(key: str, kind: torch.dtype, count: int) -> Tensor:
        nonlocal asked
        asked += count * kind.itemsize
        if asked > size:
            raise ValueError(f"it asks for {asked:,} bytes of numbers and has {size:,} in all")
        content = torch.zeros(count * kind.itemsize, dtype=torch.uint8)
        storages[key] = (content, kind)
        return content

    with path.open("rb") as file:
        reader = BoundedReader(file, size=size, path=path, share=TEXT_SHARE)
        parts = [
            _Unpickler(reader, path=path, storage=storage).checked() for _ in range(LEGACY_PICKLES)
        ]
        *_, system, value, keys = parts
        if not (isinstance(system, dict) and system.get("little_endian", True) is True):
            raise ValueError("its numbers are in the byte order of another machine")
        for key in keys:
            content, kind = storages.pop(str(key))
            count = int.from_bytes(file.read(8), "little", signed=True)
            if count * kind.itemsize != len(content):
                raise ValueError(f"storage {key!r} has {count:,} numbers, and should have others")
            _fill(content, file)
        if storages:
            raise ValueError(f"{len(storages)} storages are missing")
    return value


def _fill(content: Tensor, source: IO[bytes]) -> None:
    """Fill bytes from a stream, to their end: that is where an archive compares its checksum."""
    view: NDArray[np.uint8] = content.numpy()
    at = 0
    while at < len(view):
        part = source.read(min(_CHUNK, len(view) - at))
        if not part:
            raise EOFError(f"{len(view) - at:,} bytes of numbers are missing")
        view[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    if isinstance(source, zipfile.ZipExtFile):
        source.read(1)


def _swapped(content: Tensor, kind: torch.dtype) -> Tensor:
    size = kind.itemsize // 2 if kind.is_complex else kind.itemsize
    return content.reshape(-1, size).flip(1).reshape(-1).contiguous() if size > 1 else content


@dataclass(frozen=True, eq=False)
class _Storage:
    """The bytes of a storage, or of a part of it, and the type of its numbers."""

    key: str
    content: Tensor
    kind: torch.dtype


class _Unpickler(InertUnpickler):
    """Runs one pickle of a torch file; `storage` gives the bytes of a key, type and count."""

    def __init__(
        self,
        reader: BoundedReader,
        *,
        path: Path,
        storage: Callable[[str, torch.dtype, int], Tensor],
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
        self._storage = storage
        self._storages: dict[str, _Storage] = {}
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
        name = str(key)
        if len(name) > _LONGEST_KEY:
            raise ValueError("the key of a storage is too long")
        if name not in self._storages:
            self._storages[name] = _Storage(name, self._storage(name, dtype, count), dtype)
        whole = self._storages[name]
        if count * dtype.itemsize > len(whole.content):
            raise ValueError(f"storage {name!r} has {len(whole.content):,} bytes only")
        if not view or view[0] is None:
            return _Storage(name, whole.content, dtype)
        _, start, length = view[0]
        if not (_is_count(start) and _is_count(length) and start + length <= count):
            raise ValueError(f"a part of storage {name!r} lies beyond it")
        first, last = (at * dtype.itemsize for at in (start, start + length))
        return _Storage(f"{name}@{start}", whole.content[first:last], dtype)

    def build(self, target: Any, state: Any) -> None:
        """Fill the tensors of torch before 0.2, which are made empty."""
        if isinstance(target, Tensor) and isinstance(state, tuple):
            if len(state) == 4 and isinstance(state[0], _Storage):
                filled = self._tensor(*state)
                target.set_(
                    filled.untyped_storage(),
                    filled.storage_offset(),
                    filled.shape,
                    filled.stride(),
                )
        else:
            super().build(target, state)

    def _of_type(self, function: Any, _kind: Any, arguments: Any, *_: Any) -> Any:
        """Return a tensor of a subclass as a plain one."""
        return self.call(function, arguments)

    def _typed_tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any,
        *_: Any,
    ) -> Tensor:  # fmt: skip
        if not (isinstance(storage, _Storage) and isinstance(kind, torch.dtype)):
            raise pickle.UnpicklingError("a tensor has no storage or no known type")
        return self._tensor(_Storage(storage.key, storage.content, kind), offset, size, stride)

    def _tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = False,
        _hooks: Any = None, metadata: Any = None, *_: Any,
    ) -> Tensor:  # fmt: skip
        """Return a tensor over a storage, once it lies within; no number is copied."""
        numbers = (offset, *size, *stride)
        if not isinstance(storage, _Storage) or len(size) != len(stride):
            raise ValueError("a tensor has no storage, or a size of other sides than its steps")
        if not all(map(_is_count, numbers)):
            raise ValueError("the size of a tensor is no list of whole numbers")
        if metadata:
            raise ValueError("a tensor is stored conjugated or negated")
        count, item = math.prod(size), storage.kind.itemsize
        steps = (step * (side - 1) for side, step in zip(size, stride, strict=True))
        end = offset + sum(steps) + 1 if count else 0
        if end * item > len(storage.content):
            raise ValueError(
                f"a tensor of size {list(size)} needs {end * item:,} bytes of storage "
                f"{storage.key!r}, which has {len(storage.content):,}"
            )
        self._tensors[storage.key, offset, tuple(size), tuple(stride)] = count * item
        if not count:
            return torch.empty(size, dtype=storage.kind)
        numbers_of = storage.content.untyped_storage()
        start = storage.content.storage_offset()
        if start % item:
            raise ValueError(f"a part of storage {storage.key!r} starts within a number")
        return torch.empty(0, dtype=storage.kind).set_(
            numbers_of, offset + start // item, tuple(size), tuple(stride)
        )


_LARGEST_COUNT = 2**60


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_COUNT


def _data_of(data: Any = None, *_: Any) -> Any:
    """Return the tensor of a parameter or of another device."""
    return data


def _layout_of(*_: Any) -> Tensor:
    """Return a tensor that is sparse, as the one in the file, and has no values."""
    return torch.empty(0, layout=torch.sparse_coo)


def _quantised(*_: Any) -> Tensor:
    """Return a tensor that is quantised, as the one in the file, and has no values."""
    return torch.empty(0, dtype=torch.qint8, device="meta")


def _without_values(*_: Any) -> Tensor:
    """Return a tensor without values, as the one in the file."""
    return torch.empty(0, device="meta")


_STORAGES: Mapping[str, torch.dtype] = {
    "BFloat16Storage": torch.bfloat16, "BoolStorage": torch.bool, "ByteStorage": torch.uint8,
    "CharStorage": torch.int8, "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64, "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "IntStorage": torch.int32,
    "LongStorage": torch.int64, "QInt32Storage": torch.int32, "QInt8Storage": torch.int8,
    "QUInt2x4Storage": torch.uint8, "QUInt4x2Storage": torch.uint8, "QUInt8Storage": torch.uint8,
    "ShortStorage": torch.int16, "UntypedStorage": torch.uint8,
}  # fmt: skip
"""What the numbers in each kind of storage are; quantised ones as what they are stored in."""

_OLD_TENSORS = {
    f"torch.{place}{kind.removesuffix('Storage')}Tensor": dtype
    for kind, dtype in _STORAGES.items()
    for place in ("", "cuda.")
}


def _empty(dtype: torch.dtype) -> Callable[..., Tensor]:
    return lambda *_: torch.empty(0, dtype=dtype)


_NAMED: Mapping[str, Any] = {
    "torch.Size": lambda sides=(): torch.Size(sides),
    **dict.fromkeys(
        ("torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer",
         "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
         "torch._utils._rebuild_device_tensor_from_cpu_tensor"), _data_of,
    ),
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _layout_of,
    "torch._utils._rebuild_meta_tensor_no_storage": _without_values,
    **{name: _empty(dtype) for name, dtype in _OLD_TENSORS.items()},
    **{str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)},
}  # fmt: skip
"""What a torch file may call or name, besides the tensors themselves."""
