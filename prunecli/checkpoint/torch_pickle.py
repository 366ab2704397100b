"""What `torch.save` writes, as far as numbers do not matter: storages, tensors and their bounds.

The pickle in the file is run as data (`prunecli.checkpoint.inert`). What it says of storages and
tensors is compared with what the file holds before anything is made of it: torch itself believes
it. What is made are tensors (`torch_files`), or headers of tensors without torch
(`header_pickle`).
"""

from __future__ import annotations

import io
import math
import pickle
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from prunecli.checkpoint.inert import InertUnpickler, Stub
from prunecli.checkpoint.pickle_scan import is_attack, unsafe_pickle
from prunecli.files import TEXT_SHARE, BoundedReader, check_memory, room

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Callable, Mapping
    from pathlib import Path

_PICKLE = "data.pkl"
_LARGEST_COUNT = 2**60
_LONGEST_KEY = 100


@dataclass(frozen=True, eq=False)
class Storage:
    """So many bytes from `start` on in a storage, and the `kind` of its numbers.

    `content` is the whole storage, where it is read.
    """

    key: str
    start: int
    bytes: int
    kind: Any
    content: Any = None


class TorchUnpickler(InertUnpickler):
    """Runs one pickle of a torch file; `held` gives the whole storage of a key, kind and count.

    `storages` are the kinds of numbers by the names of torch's storages; `named` is what a file may
    call or name besides tensors.
    """

    storages: ClassVar[Mapping[str, Any]]
    named: ClassVar[Mapping[str, Any]]

    def __init__(
        self, reader: BoundedReader, *, path: Path, held: Callable[[str, Any, int], Storage]
    ) -> None:
        functions = {
            **self.named,
            "torch._tensor._rebuild_from_type_v2": self._of_type,
            **dict.fromkeys(
                ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), self.tensor
            ),
            "torch._utils._rebuild_tensor_v3": self._typed_tensor,
        }
        super().__init__(
            reader, functions=functions, most=min(reader.left, room(path) // TEXT_SHARE)
        )
        self.path = path
        self._held = held
        self._known: dict[str, Storage] = {}
        self._tensors: dict[tuple[Any, ...], int] = {}

    @abstractmethod
    def item_bytes(self, kind: Any) -> int:
        """Return the bytes of one number of a kind; raise `ValueError` for what is no kind."""

    @abstractmethod
    def over(
        self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> Any:
        """Return a tensor over a storage that it lies within; `offset` counts numbers."""

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
        _, named, key, _, count, *view = parts
        kind = self.storages.get(named.name.rpartition(".")[2]) if isinstance(named, Stub) else None
        if kind is None or not isinstance(key, str | int) or not _is_count(count):
            raise ValueError("it describes a storage of no known kind or size")
        name, item = str(key), self.item_bytes(kind)
        if len(name) > _LONGEST_KEY:
            raise ValueError("the key of a storage is too long")
        if name not in self._known:
            self._known[name] = self._held(name, kind, count)
        whole = self._known[name]
        if count * item > whole.bytes:
            raise ValueError(f"storage {name!r} has {whole.bytes:,} bytes, not {count * item:,}")
        if not view or view[0] is None:
            return replace(whole, kind=kind)
        _, start, length = view[0]
        if not (_is_count(start) and _is_count(length) and start + length <= count):
            raise ValueError(f"a part of storage {name!r} lies beyond it")
        return replace(whole, start=start * item, bytes=length * item, kind=kind)

    def _of_type(self, function: Any, _kind: Any, arguments: Any, *_: Any) -> Any:
        """Return a tensor of a subclass as a plain one."""
        return self.call(function, arguments)

    def _typed_tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, kind: Any,
        *_: Any,
    ) -> Any:  # fmt: skip
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError("a tensor has no storage")
        return self.tensor(replace(storage, kind=kind), offset, size, stride)

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, _grad: Any = False,
        _hooks: Any = None, metadata: Any = None, *_: Any,
    ) -> Any:  # fmt: skip
        """Return a tensor over a storage, once it lies within."""
        numbers = (offset, *size, *stride)
        if not isinstance(storage, Storage) or len(size) != len(stride):
            raise ValueError("a tensor has no storage, or a size of other sides than its steps")
        if not all(map(_is_count, numbers)):
            raise ValueError("the size of a tensor is no list of whole numbers")
        if metadata:
            raise ValueError("a tensor is stored conjugated or negated")
        count, item = math.prod(size), self.item_bytes(storage.kind)
        steps = (step * (side - 1) for side, step in zip(size, stride, strict=True))
        end = offset + sum(steps) + 1 if count else 0
        if end * item > storage.bytes:
            raise ValueError(
                f"a tensor of size {list(size)} needs {end * item:,} bytes of storage "
                f"{storage.key!r}, which has {storage.bytes:,}"
            )
        if count and storage.start % item:
            raise ValueError(f"a part of storage {storage.key!r} starts within a number")
        shape, strides = tuple(size), tuple(stride)
        self._tensors[storage.key, storage.start, offset, shape, strides] = count * item
        return self.over(storage, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_COUNT


def _data_of(data: Any = None, *_: Any) -> Any:
    """Return the tensor of a parameter or of another device."""
    return data


PARAMETERS: Mapping[str, Any] = dict.fromkeys(
    (
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._utils._rebuild_device_tensor_from_cpu_tensor",
    ),
    _data_of,
)
"""What wraps a tensor without changing it, by name."""


@dataclass(frozen=True)
class Archive:
    """A file of the current format: the bytes of its members, where its storages lie, its pickle.

    `folder` stands before the names of all members.
    """

    sizes: Mapping[str, int]
    folder: str
    reader: BoundedReader

    def member(self, key: str) -> str:
        """Return the name of a storage; raise `ValueError` where the file has none."""
        name = f"{self.folder}data/{key}"
        if name not in self.sizes:
            raise ValueError(f"storage {key!r} is missing")
        return name


def open_archive(archive: zipfile.ZipFile, path: Path) -> Archive:
    """Return what a file of the current format says of itself, in bounded memory."""
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    check_memory(sum(sizes.values()), path, what="unpacking the file")
    name = next((name for name in sizes if name.partition("/")[2] == _PICKLE), _PICKLE)
    check_memory(sizes.get(name, 0), path, what="its description", share=TEXT_SHARE)
    text = archive.read(name)
    reader = BoundedReader(io.BytesIO(text), size=len(text), path=path, share=TEXT_SHARE)
    return Archive(sizes, name.removesuffix(_PICKLE), reader)
