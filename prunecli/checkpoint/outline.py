"""What a checkpoint holds, read without torch: its description, and the headers of its tensors.

All of the file is read once for its digests, but no number in it becomes a tensor. What cannot be
told without torch (a plain pickle) is left to `load`, which has the same errors.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from prunecli.checkpoint.artefact import (
    FORMAT,
    Checkpoint,
    check_digest,
    check_header,
    described,
    sparse_description,
)
from prunecli.checkpoint.digest import KEY, digest_of
from prunecli.checkpoint.header_pickle import legacy_headers, zip_headers
from prunecli.checkpoint.headers import TensorHeader, is_tensor
from prunecli.checkpoint.inert import is_json
from prunecli.checkpoint.modules import Opened, open_modules, wrapped
from prunecli.checkpoint.sniff import SAFETENSORS, TORCH_LEGACY, TORCH_ZIP, corrupt, sniff
from prunecli.errors import LoadRefusedError
from prunecli.files import file_sha256, reading

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.checkpoint.inert import Stub

VALUES = "#values"
"""The end of the name of the kept values of a sparse tensor (`prunecli.checkpoint.compact`)."""


_SAFETENSORS_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "U16": "uint16", "I32": "int32",
    "U32": "uint32", "I64": "int64", "U64": "uint64", "F16": "float16", "BF16": "bfloat16",
    "F32": "float32", "F64": "float64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip


_Read: TypeAlias = tuple[Opened, Mapping[str, Any] | None]
"""What a file holds, and our description of it in an artefact."""


@dataclass(frozen=True)
class Outline:
    """What a file holds: `value` is what was saved, with headers in place of tensors.

    `checkpoint` is there for an artefact of ours, its tensors headers too, and `sparsity` then the
    share of its weights that are stored as zeros (None where none are). `modules` are the records
    of models that were pickled as a whole, by the place of their weights in `value`.
    """

    kind: str
    sha256: str
    value: Any
    checkpoint: Checkpoint | None = None
    sparsity: float | None = None
    modules: Mapping[str, Stub] = field(default_factory=dict)

    def whole(self, place: str) -> str | None:
        """Return the class of the model that was pickled as a whole at a place; None for others."""
        module = self.modules.get(place)
        return None if module is None else wrapped(module).name


def outline(path: Path, *, allow_pickle: bool = False) -> Outline:
    """Return what a checkpoint holds.

    Raises what `load` raises for a file that is damaged, too large, or attacks. `allow_pickle` lets
    the file run code, as for `load`.
    """
    kind = sniff(path)
    sha256 = file_sha256(path)
    reader = _READERS.get(kind)
    if reader is None or allow_pickle:
        contents = _by_loading(kind, path, allow_pickle=allow_pickle)
        return Outline(kind, sha256, _headers(contents.value))
    with reading(path, corrupt):
        opened, header = reader(path)
    if header is None:
        return Outline(kind, sha256, opened.value, modules=opened.modules)
    return _artefact(kind, path, sha256, opened.value, header)


def _by_loading(kind: str, path: Path, *, allow_pickle: bool) -> Any:
    from prunecli.checkpoint.reading import read_contents  # it needs torch

    return read_contents(kind, path, allow_pickle=allow_pickle)


def _headers(value: Any) -> Any:
    """Replace tensors by their headers."""
    if is_tensor(value) and not isinstance(value, TensorHeader):
        return TensorHeader(str(value.dtype).removeprefix("torch."), tuple(value.shape))
    if isinstance(value, Mapping):
        return {key: _headers(item) for key, item in value.items()}
    return value


def _read_zip(path: Path) -> _Read:
    return _own(open_modules(zip_headers(path)), path)


def _read_legacy(path: Path) -> _Read:
    return _own(open_modules(legacy_headers(path)), path)


def _own(opened: Opened, path: Path) -> _Read:
    header = opened.value
    if not isinstance(header, Mapping) or header.get("format") != FORMAT:
        return opened, None
    if not is_json({key: item for key, item in header.items() if key != "state_dict"}):
        raise corrupt(path, "what describes it is not plain data")
    return replace(opened, value=header.get("state_dict", {})), header


def _read_safetensors(path: Path) -> _Read:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:  # it checks the header; nothing is read
        metadata = file.metadata() or {}
    entries, start = _safetensors_header(path)
    tensors = {
        name: TensorHeader(
            _SAFETENSORS_TYPES.get(entry["dtype"], str(entry["dtype"]).lower()),
            tuple(entry["shape"]),
            ("", start + entry["data_offsets"][0]),
        )
        for name, entry in entries.items()
    }
    return Opened(tensors), json.loads(metadata[FORMAT]) if FORMAT in metadata else None


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the entries of the tensors, and where their numbers begin in the file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    return entries, 8 + length


_READERS: Mapping[str, Callable[[Path], _Read]] = {
    TORCH_ZIP: _read_zip,
    TORCH_LEGACY: _read_legacy,
    SAFETENSORS: _read_safetensors,
}


def _artefact(kind: str, path: Path, sha256: str, value: Any, header: Mapping[str, Any]) -> Outline:
    where = str(path)
    check_header(header, value, where=where)
    _check_digest(kind, path, value, header)
    tensors, sparsity = _restored(value, sparse_description(header), where=where)
    checkpoint = described(header, tensors, {}, where=where)
    return Outline(kind, sha256, tensors, checkpoint, sparsity)


def _check_digest(
    kind: str, path: Path, tensors: Mapping[str, TensorHeader], header: Mapping[str, Any]
) -> None:
    """Compare the digest in an artefact with that of its bytes, where they lie in one piece."""
    if kind not in _CONTENTS or header.get(KEY) is None:
        return
    if any(tensor.place is None for tensor in tensors.values()):
        return
    with reading(path, corrupt), _CONTENTS[kind](path) as content:
        found = digest_of(
            header,
            (
                (name, tensor.dtype, tensor.shape, content(tensor))
                for name, tensor in sorted(tensors.items())
            ),
        )
    check_digest(header, found, where=str(path))


Content = Callable[[TensorHeader], bytes]


@contextmanager
def _in_file(path: Path) -> Iterator[Content]:
    """Yield what reads the bytes of a tensor of a file that is one storage."""
    with path.open("rb") as file:

        def content(tensor: TensorHeader) -> bytes:
            assert tensor.place is not None
            file.seek(tensor.place[1])
            return file.read(tensor.bytes)

        yield content


@contextmanager
def _in_archive(path: Path) -> Iterator[Content]:
    """Yield what reads the bytes of a tensor of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name.rpartition("/data/")[2]: name for name in archive.namelist()}

        def content(tensor: TensorHeader) -> bytes:
            assert tensor.place is not None
            storage, offset = tensor.place
            with archive.open(members[storage]) as stream:
                stream.seek(offset)
                return stream.read(tensor.bytes)

        yield content


_CONTENTS: Mapping[str, Callable[[Path], AbstractContextManager[Content]]] = {
    TORCH_ZIP: _in_archive,
    SAFETENSORS: _in_file,
}


def _restored(
    stored: Mapping[str, TensorHeader], description: Any, *, where: str
) -> tuple[dict[str, Any], float | None]:
    """Return the headers of sparse tensors as they were before packing, and the share of zeros."""
    tensors: dict[str, TensorHeader] = dict(stored)
    if description is None:
        return tensors, None
    every, kept = 0, 0
    try:
        for name, facts in description["tensors"].items():
            values = tensors.pop(name + VALUES)
            tensors.pop(name + facts["places"])
            shape = tuple(int(size) for size in facts["shape"])
            tensors[name] = TensorHeader(values.dtype, shape)
            every, kept = every + math.prod(shape), kept + values.count
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise LoadRefusedError(
            f"the sparse weights in this file are damaged: {error!r}",
            code="CORRUPT_FILE",
            where=where,
            hint="write it again, or take another copy",
        ) from error
    return tensors, 1 - kept / every if every else 0.0
