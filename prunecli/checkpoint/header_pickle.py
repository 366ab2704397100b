"""What `torch.save` wrote, read as data with the headers of tensors in place of their numbers.

The pickle is run as in `prunecli.checkpoint.torch_files`, and what it says is compared with what
the file holds in the same way, but without torch: no number is looked at.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prunecli.checkpoint.headers import BITS, TensorHeader, contiguous_strides
from prunecli.checkpoint.pickle_scan import LEGACY_PICKLES
from prunecli.checkpoint.torch_pickle import PARAMETERS, Storage, TorchUnpickler, open_archive
from prunecli.errors import first_line
from prunecli.files import TEXT_SHARE, BoundedReader, check_plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CHUNK = 1 << 20


def zip_headers(path: Path) -> Any:
    """Return what is in a file of the current format; raises as `torch_files.read_zip`."""
    check_plain(path)
    with zipfile.ZipFile(path) as archive:
        told = open_archive(archive, path)

        def held(key: str, kind: str, _: int) -> Storage:
            return Storage(key, 0, told.sizes[told.member(key)], kind)

        value = _HeaderUnpickler(told.reader, path=path, held=held).checked()
        _check_sums(archive)
    return value


def legacy_headers(path: Path) -> Any:
    """Return what is in a file of torch before 1.6; raises as `torch_files.read_legacy`."""
    size = check_plain(path)
    storages: dict[str, int] = {}

    def held(key: str, kind: str, count: int) -> Storage:
        storages[key] = wanted = count * _item_bytes(kind)
        if sum(storages.values()) > size:
            raise ValueError(f"it asks for more bytes of numbers than the {size:,} in all")
        return Storage(key, 0, wanted, kind)

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
class _Dtype:
    """A type of numbers by its name."""

    name: str


def _item_bytes(kind: str) -> int:
    return BITS.get(kind, 8) // 8


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
    **PARAMETERS,
    "torch.Size": lambda sides=(): tuple(sides),
    "torch._utils._rebuild_qtensor": lambda storage, _, size, *__: TensorHeader(
        storage.kind, tuple(size)
    ),
    "torch._utils._rebuild_sparse_tensor": lambda *_: TensorHeader("sparse", ()),
    "torch._utils._rebuild_meta_tensor_no_storage": lambda *_: TensorHeader("meta", ()),
    **{f"torch.{name}": _Dtype(name) for name in BITS},
}  # fmt: skip
"""What a torch file may call or name, besides the tensors themselves."""


class _HeaderUnpickler(TorchUnpickler):
    """Makes a header of every tensor; a kind of numbers is torch's name for it."""

    storages: ClassVar[Mapping[str, str]] = _STORAGES
    named: ClassVar[Mapping[str, Any]] = _NAMED

    def item_bytes(self, kind: Any) -> int:
        """Return the bytes of one number."""
        return _item_bytes(_name_of(kind))

    def over(
        self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> TensorHeader:
        """Return the header of a tensor, and where its numbers lie if one after the other."""
        kind = _name_of(storage.kind)
        start = storage.start + offset * _item_bytes(kind)
        whole = stride == contiguous_strides(size)
        return TensorHeader(kind, size, (storage.key, start) if whole else None)


def _name_of(kind: Any) -> str:
    if isinstance(kind, _Dtype):
        return kind.name
    if not isinstance(kind, str):
        raise ValueError("a tensor has no known type")  # noqa: TRY004 - of the file, not of a call
    return kind
