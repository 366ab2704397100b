"""Read what `torch.save` wrote, in either of its formats, without importing or running anything.

The pickle in the file is run as data, and what it says of storages and tensors is compared with
what the file holds before anything is allocated (`prunecli.checkpoint.torch_pickle`).
"""

from __future__ import annotations

import zipfile
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from prunecli.checkpoint.pickle_scan import LEGACY_PICKLES
from prunecli.checkpoint.torch_pickle import PARAMETERS, Storage, TorchUnpickler, open_archive
from prunecli.files import TEXT_SHARE, BoundedReader, check_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

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
        told = open_archive(archive, path)
        order = f"{told.folder}byteorder"
        swapped = told.sizes.get(order) and archive.read(order) == b"big"

        def held(key: str, kind: torch.dtype, count: int) -> Storage:
            member, wanted = told.member(key), count * kind.itemsize
            size = told.sizes[member]
            if wanted > size:
                raise ValueError(f"storage {key!r} has {size:,} bytes, not {wanted:,}")
            content = torch.empty(size, dtype=torch.uint8)
            with archive.open(member) as source:
                _fill(content, source)
            return Storage(key, 0, size, kind, _swapped(content, kind) if swapped else content)

        return _Unpickler(told.reader, path=path, held=held).checked()


def read_legacy(path: Path) -> Any:
    """Return what is in a file of torch before 1.6: see `read_zip`."""
    size = check_plain(path)
    storages: dict[str, tuple[Tensor, torch.dtype]] = {}
    asked = 0

    def held(key: str, kind: torch.dtype, count: int) -> Storage:
        nonlocal asked
        asked += count * kind.itemsize
        if asked > size:
            raise ValueError(f"it asks for {asked:,} bytes of numbers and has {size:,} in all")
        content = torch.zeros(count * kind.itemsize, dtype=torch.uint8)
        storages[key] = (content, kind)
        return Storage(key, 0, len(content), kind, content)

    with path.open("rb") as file:
        reader = BoundedReader(file, size=size, path=path, share=TEXT_SHARE)
        parts = [_Unpickler(reader, path=path, held=held).checked() for _ in range(LEGACY_PICKLES)]
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
    **PARAMETERS,
    "torch.Size": lambda sides=(): torch.Size(sides),
    "torch._utils._rebuild_qtensor": _quantised,
    "torch._utils._rebuild_sparse_tensor": _layout_of,
    "torch._utils._rebuild_meta_tensor_no_storage": _without_values,
    **{name: _empty(dtype) for name, dtype in _OLD_TENSORS.items()},
    **{str(kind): kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)},
}  # fmt: skip
"""What a torch file may call or name, besides the tensors themselves."""


class _Unpickler(TorchUnpickler):
    """Makes the tensors themselves; no number is copied."""

    storages: ClassVar[Mapping[str, torch.dtype]] = _STORAGES
    named: ClassVar[Mapping[str, Any]] = _NAMED

    def item_bytes(self, kind: Any) -> int:
        """Return the bytes of one number."""
        if not isinstance(kind, torch.dtype):
            raise ValueError("a tensor has no known type")  # noqa: TRY004 - of the file
        return kind.itemsize

    def over(
        self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Tensor:
        """Return a tensor over the bytes of a storage."""
        kind: torch.dtype = storage.kind
        if 0 in size:
            return torch.empty(size, dtype=kind)
        first = storage.start // kind.itemsize + offset
        whole = storage.content.untyped_storage()
        return torch.empty(0, dtype=kind).set_(whole, first, size, stride)

    def build(self, target: Any, state: Any) -> None:
        """Fill the tensors of torch before 0.2, which are made empty."""
        if isinstance(target, Tensor) and isinstance(state, tuple):
            if len(state) == 4 and isinstance(state[0], Storage):
                filled = self.tensor(*state)
                target.set_(
                    filled.untyped_storage(),
                    filled.storage_offset(),
                    filled.shape,
                    filled.stride(),
                )
        else:
            super().build(target, state)
