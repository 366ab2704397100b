"""Tell what a pickle wants to import, and whether that is harmless. Nothing of it is executed."""

from __future__ import annotations

import pickletools
import re
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

from prunecli.errors import LoadRefusedError, PruneError
from prunecli.files import BoundedReader, check_plain

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LEGACY_PICKLES = 5  # magic number, protocol, system, object, storage keys
ZIP_MAGIC = b"PK\x03\x04"
_SHOWN = 8
_DTYPE = re.compile(r"torch\.(b?float|complex|q?u?int)\d+\w*|torch\.bool")

_SAFE_NAMES = frozenset(
    {
        "argparse.Namespace",
        "collections.OrderedDict",
        "collections.Counter",
        "collections.defaultdict",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.nn.parameter.Parameter",
        "torch.nn.parameter.Buffer",
        "torch._tensor._rebuild_from_type_v2",
        "_codecs.encode",
        "__builtin__.set",
        "builtins.set",
        "builtins.bytearray",
        "builtins.complex",
        # A numpy number beside the weights (best_acc) is data; numpy's own loader builds it.
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
    }
)


_ATTACKS = frozenset(
    {
        *("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "pty", "importlib", "imp"),
        *("runpy", "code", "codeop", "ctypes", "_ctypes", "commands", "popen2", "pdb", "bdb"),
        *("timeit", "trace", "profile", "cProfile", "webbrowser", "marshal", "pip", "ftplib"),
        *("urllib", "urllib2", "http", "httplib", "requests", "smtplib", "telnetlib", "paramiko"),
        *("tempfile", "multiprocessing.popen_fork", "asyncio.subprocess", "torch.hub"),
    }
)
"""Modules that nothing in a checkpoint needs, and that break-ins begin with."""

_ATTACKING_BUILTINS = frozenset(
    {"eval", "exec", "execfile", "compile", "open", "file", "input", "__import__", "breakpoint"}
)


@dataclass(frozen=True)
class PickleScan:
    """What the pickles in a file import, in order of appearance, and how many of them are whole."""

    imported: tuple[str, ...]
    whole: int

    @property
    def complete(self) -> bool:
        """Tell whether at least one pickle could be read to its end."""
        return self.whole > 0

    @property
    def unsafe(self) -> tuple[str, ...]:
        """Return the imported names that a file of plain tensors has no use for."""
        return tuple(name for name in self.imported if not _is_plain(name))


def scan_file(path: Path) -> PickleScan:
    """Scan a file of `torch.save` in either format, or a plain pickle."""
    size = check_plain(path)
    with path.open("rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:  # as torch tells them
            return _scan_zip(path)
        file.seek(0)
        return _scan_stream(BoundedReader(file, size=size, path=path))


def is_attack(name: str) -> bool:
    """Tell whether a name that a file asks for is a sign of a break-in, whatever else it holds.

    Nothing that a file names is imported or called, so this only chooses what people are told.

    >>> is_attack("posix.system"), is_attack("pathlib.PosixPath")
    (True, False)
    """
    module, _, attribute = name.partition(".")
    if module in {"builtins", "__builtin__", "io", "_io"}:
        return attribute.partition(".")[0] in _ATTACKING_BUILTINS
    parts = name.split(".")
    return module in _ATTACKS or ".".join(parts[:2]) in _ATTACKS


def unsafe_pickle(path: Path, wanted: Iterable[str]) -> LoadRefusedError:
    """Return the error (`UNSAFE_PICKLE`) of a file that would run code, by the names it wants."""
    wanted = tuple(wanted)
    names = ", ".join(wanted[:_SHOWN])
    more = f", and {len(wanted) - _SHOWN} more" if len(wanted) > _SHOWN else ""
    return LoadRefusedError(
        f"reading this file would run code: it wants {names}{more}. Nothing of it was run",
        code="UNSAFE_PICKLE",
        where=str(path),
        hint="save the weights alone, torch.save(model.state_dict(), 'weights.pt'), and name the "
        "model with --arch (resnet50, or mypackage.nets:make_net); or, if you trust whoever "
        "made the file with your machine, --allow-pickle",
    )


def _scan_zip(path: Path) -> PickleScan:
    scans = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".pkl"):
                    with archive.open(member) as stream:
                        reader = BoundedReader(stream, size=member.file_size, path=path)
                        scans.append(_scan_stream(reader))
    except PruneError:
        raise
    except Exception:  # noqa: BLE001 - a damaged archive raises any of a dozen types
        return PickleScan((), whole=0)
    imported = dict.fromkeys(name for scan in scans for name in scan.imported)
    return PickleScan(tuple(imported), whole=sum(scan.whole for scan in scans))


def _scan_stream(file: BoundedReader) -> PickleScan:
    """Scan the pickles that stand one after the other at the beginning of a stream."""
    imported: list[str] = []
    for whole in range(LEGACY_PICKLES):
        try:
            imported += _imports(file)
        except _IncompleteError as stopped:
            return PickleScan(tuple(dict.fromkeys(imported + stopped.imported)), whole=whole)
    return PickleScan(tuple(dict.fromkeys(imported)), whole=LEGACY_PICKLES)


class _IncompleteError(Exception):
    """Carries what was found before the stream ended or stopped to make sense."""

    def __init__(self, imported: list[str]) -> None:
        super().__init__()
        self.imported = imported


def _imports(file: BoundedReader) -> list[str]:
    """Return `module.name` of every import in the next pickle of the stream.

    `STACK_GLOBAL` takes its two names from the stack, so strings and the memo are followed.
    """
    found: list[str] = []
    strings: list[str] = []
    memo: dict[Any, str] = {}
    try:
        for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", file)):
            if opcode.name in {"GLOBAL", "INST"}:
                found.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                found.append(".".join(strings[-2:]))
            elif opcode.name in {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}:
                slot = len(memo) if argument is None else argument
                memo[slot] = strings[-1] if strings else ""
            elif opcode.name in {"GET", "BINGET", "LONG_BINGET"}:
                strings.append(memo.get(argument, "?"))
            elif isinstance(argument, str):
                strings.append(argument)
    except PruneError:
        raise
    except Exception as error:  # a damaged stream may fail anywhere in the disassembler
        raise _IncompleteError(found) from error
    return found


def _is_plain(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    rebuilds = module == "torch._utils" and attribute.startswith("_rebuild_")
    storage = module in {"torch", "torch.cuda", "torch.storage"} and attribute.endswith("Storage")
    return name in _SAFE_NAMES or rebuilds or storage or _DTYPE.fullmatch(name) is not None
