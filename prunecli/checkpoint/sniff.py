"""Tell what a file is by its first bytes and its table of contents, never by its name."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

from prunecli.checkpoint.pickle_scan import ZIP_MAGIC, scan_file
from prunecli.errors import InputError, LoadRefusedError, PruneError
from prunecli.files import TEXT_SHARE, check_memory, check_plain, empty_file, missing_file, reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TORCH_ZIP = "torch.save"
TORCH_LEGACY = "torch.save before 1.6"
SAFETENSORS = "safetensors"
PLAIN_PICKLE = "pickle"

_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")  # torch.serialization.MAGIC_NUMBER
_PICKLE = b"\x80"
_NEWEST_PICKLE_PROTOCOL = b"\x05"
_HEAD = 64
_LARGEST_SAFETENSORS_HEADER = 100_000_000  # the limit of the safetensors library itself

# First bytes of files that people mistake for checkpoints, and what to tell them.
_STRANGERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip archive", "unpack it first: gunzip"),
    (b"BZh", "a bzip2 archive", "unpack it first: bunzip2"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first: unxz"),
    (b"\x89HDF", "an HDF5 file, as Keras writes", "give a PyTorch checkpoint"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (b"<", "a web page or XML, so perhaps a failed download", "download the file again"),
    (b"\x93NUMPY", "a numpy array", "give a PyTorch checkpoint"),
    (b"GGUF", "a GGUF file", "give a PyTorch checkpoint"),
)


def sniff(path: Path) -> str:
    """Return which reader a file needs: `TORCH_ZIP`, `TORCH_LEGACY`, `SAFETENSORS`, `PLAIN_PICKLE`.

    Raises `InputError` when there is no such file, and `LoadRefusedError` for everything that is
    not a checkpoint, with a code and a message that name what it is.
    """
    head, size = _read_head(path)
    if size == 0:
        raise empty_file(path)
    for recognise in _RECOGNISERS:
        kind = recognise(path, head, size)
        if kind is not None:
            return kind
    raise not_a_checkpoint(path, "this is not a checkpoint that can be read")


def not_a_checkpoint(path: Path, message: str, *, hint: str | None = None) -> PruneError:
    """Return the error for a file that holds something else."""
    return LoadRefusedError(
        message,
        code="NOT_A_CHECKPOINT",
        where=str(path),
        hint=hint or "give a state dict saved with torch.save (.pt, .pth, .th) or a .safetensors",
    )


def corrupt(path: Path, reason: str) -> PruneError:
    """Return the error for a file that is damaged or cut short."""
    return LoadRefusedError(
        f"the file is damaged or cut short: {reason}",
        code="CORRUPT_FILE",
        where=str(path),
        hint="download or copy it again, and compare sizes",
    )


def _read_head(path: Path) -> tuple[bytes, int]:
    if path.is_dir():
        raise InputError(
            "this is a folder, not a checkpoint",
            code="NOT_A_FILE",
            where=str(path),
            hint="name the checkpoint file inside it",
        )
    try:
        size = check_plain(path)
        with path.open("rb") as file:
            return file.read(_HEAD), size
    except FileNotFoundError as error:
        raise missing_file(path) from error
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error.strerror}",
            code="UNREADABLE_FILE",
            where=str(path),
            hint="check its permissions",
        ) from error


def _torch_legacy(_path: Path, head: bytes, _size: int) -> str | None:
    return TORCH_LEGACY if head.startswith(_PICKLE) and _LEGACY_MAGIC in head else None


def _zip(path: Path, head: bytes, _size: int) -> str | None:
    if not head.startswith(ZIP_MAGIC):
        return None
    with reading(path, corrupt), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inner = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise LoadRefusedError(
            "this is a TorchScript file: a program with its weights, not a checkpoint",
            code="TORCHSCRIPT",
            where=str(path),
            hint="save the weights of the original model: torch.save(model.state_dict(), 'm.pt')",
        )
    exported = {"archive_format", "serialized_exported_program.json"}
    if exported & inner or any(name.startswith("models/") for name in inner):
        raise LoadRefusedError(
            "this is an exported program (.pt2): a traced graph, not a checkpoint",
            code="EXPORTED_PROGRAM",
            where=str(path),
            hint="save the weights of the original model: torch.save(model.state_dict(), 'm.pt')",
        )
    if "data.pkl" in inner:
        return TORCH_ZIP
    raise not_a_checkpoint(path, "this is a zip archive without a checkpoint inside")


def _safetensors(path: Path, head: bytes, size: int) -> str | None:
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or not 2 <= length <= _LARGEST_SAFETENSORS_HEADER:
        return None
    if 8 + length > size:
        raise corrupt(path, f"a header of {length} bytes in a file of {size}")
    check_memory(length, path, what="its description", share=TEXT_SHARE)
    return SAFETENSORS


def _pickle(path: Path, head: bytes, _size: int) -> str | None:
    # The oldest pickles are text without a magic number: they are told by being readable to an end.
    if head.startswith(_PICKLE) and head[1:2] <= _NEWEST_PICKLE_PROTOCOL:
        return PLAIN_PICKLE
    return PLAIN_PICKLE if scan_file(path).complete else None


def _stranger(path: Path, head: bytes, _size: int) -> str | None:
    for magic, name, hint in _STRANGERS:
        if head.startswith(magic):
            raise not_a_checkpoint(path, f"this is {name}", hint=hint)
    return None


def _tar(path: Path, _head: bytes, _size: int) -> str | None:
    with path.open("rb") as file:
        if file.read(262)[257:] == b"ustar":
            raise not_a_checkpoint(
                path,
                "this is a tar archive",
                hint="unpack it; a checkpoint of torch 0.1 must be saved again with a newer torch",
            )
    return None


def is_onnx(path: Path) -> bool:
    """Tell whether a file is to be read as ONNX: it is named so, or begins so.

    Raises as `sniff` where there is no file to read.
    """
    head, _ = _read_head(path)
    return path.suffix.lower() == ".onnx" or _starts_as_onnx(head)


def _starts_as_onnx(head: bytes) -> bool:
    # An ONNX file starts with field 1 (the format's version), then field 2 (the producer) or 7/8.
    following = head[2:3]
    return head[:1] == b"\x08" and head[1:2] < b"\x20" and following in {b"\x12", b"\x3a", b"\x42"}


def _onnx(path: Path, head: bytes, _size: int) -> str | None:
    if _starts_as_onnx(head):
        raise not_a_checkpoint(
            path,
            "this is an ONNX file, which only evaluate, info, compare and bench read",
            hint="give the checkpoint that it was exported from",
        )
    return None


# In order; each returns a kind, raises because it knows what else the file is, or passes.
_RECOGNISERS: tuple[Callable[[Path, bytes, int], str | None], ...] = (
    _torch_legacy,
    _zip,
    _safetensors,
    _stranger,
    _onnx,
    _tar,
    _pickle,
)
