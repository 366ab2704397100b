"""Read files of strangers: plain files alone, and within the memory that a run allows.

A file of a few kilobytes can ask for terabytes, and a link to `/dev/zero` never ends. What a file
asks for is known from its header, so it is refused before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from prunecli.errors import InputError, LoadRefusedError, PruneError, first_line, is_out_of_memory
from prunecli.options.load import MEMORY
from prunecli.wording import byte_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT_SHARE = 256
"""Part of the memory that a description may have as text: each byte may become a Python object."""

IMAGE_SHARE = 16
"""Part of the memory that the file of one image may have."""


@dataclass(frozen=True)
class Limits:
    """What files may ask for: bytes of memory, and whether they may lead out of their folder."""

    memory: int = MEMORY
    outside: bool = False


_limits = [Limits()]


def current() -> Limits:
    """Return the limits in force."""
    return _limits[-1]


@contextmanager
def limited(**changes: Any) -> Iterator[None]:
    """Read files within other limits meanwhile; they hold for all threads."""
    _limits.append(dataclasses.replace(current(), **changes))
    try:
        yield
    finally:
        _limits.pop()


def room(path: Path) -> int:
    """Return the bytes of memory that reading a file may take.

    A file that takes more than the limit on disk may be read as it is: that is no trick. One with
    holes takes less than its size.
    """
    on_disk = path.stat().st_blocks * 512 if path.exists() else 0
    return max(current().memory, on_disk)


def check_memory(asked: int, path: Path, *, what: str = "reading the file", share: int = 1) -> None:
    """Raise `LoadRefusedError` (`FILE_TOO_LARGE`) where a file asks for more than it may have."""
    allowed = room(path) // share
    if asked > allowed:
        raise LoadRefusedError(
            f"{what} would take {byte_text(asked)} of memory, and {byte_text(allowed)} is the most",
            code="FILE_TOO_LARGE",
            where=str(path),
            hint="if you know where the file is from, raise the limit: --max-file-memory "
            f"{byte_text(asked * share, up=True).replace(' ', '')}",
        )


def check_plain(path: Path, *, share: int = 1) -> int:
    """Return the size of a plain file in bytes.

    Raises `LoadRefusedError`: `NOT_A_PLAIN_FILE` for a pipe or a device, which may never end,
    `FILE_TOO_LARGE`; and `OSError` where there is none.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise LoadRefusedError(
            "this is no plain file, but a folder, a pipe or a device",
            code="NOT_A_PLAIN_FILE",
            where=str(path),
            hint="write its content to a file first",
        )
    check_memory(status.st_size, path, share=share)
    return status.st_size


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(path: Path, *, share: int = 1) -> bytes:
    """Return the content of a plain file that may take a share of the memory.

    Raises `OSError` and what `check_plain` raises.
    """
    size = check_plain(path, share=share)
    with path.open("rb") as file:
        content = file.read(size + 1)
    check_memory(len(content), path, share=share)
    return content


def read_text(path: Path) -> str:
    """Return the content of a text file; raises `OSError`, `ValueError`, and as `check_plain`."""
    return read_bytes(path, share=TEXT_SHARE).decode("utf-8")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raises as `read_text`, and `RecursionError`."""
    return json.loads(read_text(path))


def unpacked(stream: IO[bytes], path: Path, *, share: int = 1) -> bytes:
    """Return the content of a compressed stream; raise `FILE_TOO_LARGE` before it fills memory."""
    allowed = room(path) // share
    parts: list[bytes] = []
    total = 0
    while part := stream.read(1 << 20):
        total += len(part)
        if total > allowed:
            check_memory(total, path, what="unpacking the file", share=share)
        parts.append(part)
    return b"".join(parts)


@contextmanager
def reading(path: Path, damaged: Callable[[Path, str], PruneError]) -> Iterator[None]:
    """Turn whatever a parser raises into the error of a damaged file, or of too little memory.

    The boundary around every parser: these raise anything on bytes that they were not made for.
    """
    try:
        yield
    except (PruneError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if is_out_of_memory(error):
            raise no_memory(str(path)) from error
        raise damaged(path, first_line(error)) from error


def missing_file(path: Path) -> InputError:
    """Return the error of a file that is not there."""
    return InputError(
        "there is no such file",
        code="FILE_NOT_FOUND",
        where=str(path),
        hint=f"{nearest_path(path)}check the path",
    )


def empty_file(path: Path) -> LoadRefusedError:
    """Return the error of a file without a byte."""
    return LoadRefusedError(
        "the file is empty",
        code="EMPTY_FILE",
        where=str(path),
        hint="the program that wrote it may have been stopped; save or download it again",
    )


MOST_NAMES = 10_000
"""Names in a folder that are looked at: a data set may have millions."""


def nearest_path(path: Path) -> str:
    """Return the question about the path that may be meant, a space behind it; or nothing.

    Where a folder on the way is not there, that is told.
    """
    folder = next((each for each in reversed(path.parents) if not each.exists()), None)
    if folder is not None:
        return f"the folder {folder} does not exist; "
    stems = {Path(name).stem: name for name in _names_beside(path)}
    near = difflib.get_close_matches(path.stem, stems, n=1, cutoff=0.7)
    return f"did you mean {path.parent / stems[near[0]]}? " if near else ""


def _names_beside(path: Path) -> list[str]:
    try:
        names = (each.name for each in path.parent.iterdir())
        return [name for name, _ in zip(names, range(MOST_NAMES), strict=False)]
    except OSError:
        return []


def no_memory(where: str | None = None) -> InputError:
    """Return the error of too little memory."""
    return InputError(
        "not enough memory",
        code="OUT_OF_MEMORY",
        where=where,
        hint="lower --batch-size or --limit, or allow the process more (ulimit -v)",
    )


def is_model_folder(path: Path) -> bool:
    """Tell whether a folder holds a model, as those of the Hugging Face hub do."""
    return (path / "config.json").is_file() and any(
        (path / name).is_file() for name in MODEL_WEIGHTS
    )


MODEL_WEIGHTS = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""Where the weights of a model's folder lie, in the order of preference."""


def is_inside(path: str, folder: str) -> bool:
    """Tell whether a path leads below a folder once all links are followed; both may be links."""
    root = os.path.realpath(folder)
    found = os.path.realpath(path)
    return found == root or found.startswith(root.rstrip(os.sep) + os.sep)


class BoundedReader:
    """A stream that never reads beyond what is there, nor more than `most` bytes in all.

    `read(n)` of an ordinary file first allocates `n` bytes, whatever the file holds.
    """

    def __init__(self, stream: IO[bytes], *, size: int, path: Path, share: int = 1) -> None:
        self.stream = stream
        self.share = share
        self.left = size
        self.path = path
        self.taken = 0
        self.most = room(path) // share  # once: a file is read in many small pieces

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes; raises `EOFError` where they are not there."""
        if count > self.left:
            raise EOFError(f"it asks for {count:,} bytes where {self.left:,} are left")
        return self._taken(self.stream.read(self.left if count < 0 else count))

    def readline(self) -> bytes:
        """Return the next line."""
        return self._taken(self.stream.readline(self.left))

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is something left."""
        content = self.read(min(len(buffer), self.left))
        buffer[: len(content)] = content
        return len(content)

    def _taken(self, content: bytes) -> bytes:
        self.left -= len(content)
        self.taken += len(content)
        if self.taken > self.most:
            check_memory(self.taken, self.path, what="its description", share=self.share)
        return content
