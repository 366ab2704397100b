"""Files that ask for far more than they hold, each made in a few lines."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.lib import format as npy

if TYPE_CHECKING:
    from pathlib import Path

GIGABYTES = 7 * 10**9
UNPACKED = 2**29
"""Bytes that what is really compressed unpacks to: making more takes long."""


class _Storage:
    """Pickles as torch pickles a storage."""

    def __init__(self, count: int, key: str = "0") -> None:
        self.reference = ("storage", torch.FloatStorage, key, "cpu", count)


class _Tensor:
    """Pickles as torch pickles a tensor over a storage."""

    def __init__(self, count: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.size, self.stride = _Storage(count), size, stride

    def __reduce__(self) -> Any:
        arguments = (self.storage, 0, self.size, self.stride, False, {})
        return torch._utils._rebuild_tensor_v2, arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.reference if isinstance(value, _Storage) else None


def pickled(value: Any) -> bytes:
    """Return a value as `torch.save` pickles it, `_Tensor` standing for a tensor."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def archive(path: Path, description: bytes, *, data: bytes = b"", packed: bool = False) -> Path:
    """Write an archive as `torch.save` writes it, by hand."""
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("m/data.pkl", description)
        file.writestr("m/byteorder", "little")
        file.writestr("m/version", "3\n")
        file.writestr("m/data/0", data)
    return path


def legacy(path: Path, description: bytes, *, tail: bytes = b"") -> Path:
    """Write a file of torch before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts = [torch.serialization.MAGIC_NUMBER, 1001, system]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    path.write_bytes(head + description + pickle.dumps(["0"], protocol=2) + tail)
    return path


def expanded(path: Path, *, old: bool = False) -> Path:
    """Write 8 kB that ask for 2^50 numbers: every one of them the same."""
    tensor = _Tensor(2000, (2**25, 2**25), (0, 0))
    if not old:
        return archive(path, pickled({"w": tensor}), data=bytes(8000))
    return legacy(path, pickled({"w": tensor}), tail=struct.pack("<q", 2000) + bytes(8000))


def short_storage(path: Path, *, old: bool = False) -> Path:
    """Write a storage that is said to hold 7 GB, and holds 8 bytes."""
    tensor = _Tensor(GIGABYTES // 4, (2,), (1,))
    if not old:
        return archive(path, pickled({"w": tensor}), data=bytes(8))
    return legacy(path, pickled({"w": tensor}), tail=struct.pack("<q", 2) + bytes(8))


def beyond_storage(path: Path) -> Path:
    """Write a tensor that reaches beyond its storage."""
    return archive(path, pickled({"w": _Tensor(2, (2**20,), (1,))}), data=bytes(8))


def deflated(path: Path) -> Path:
    """Write half a megabyte of zip that unpacks to half a gigabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("m/data.pkl", "w", force_zip64=True) as stream:
            for _ in range(UNPACKED // 2**24):
                stream.write(bytes(2**24))
        file.writestr("m/version", "3\n")
    return path


def array_of_bytes(path: Path) -> Path:
    """Write a pickle that calls `bytearray(7 GB)`, which torch allows."""
    description = b"\x80\x02cbuiltins\nbytearray\n" + pickle.LONG1 + b"\x05"
    description += GIGABYTES.to_bytes(5, "little") + b"\x85R."
    return archive(path, description)


def endless_key(path: Path) -> Path:
    """Write a dictionary whose key is a tuple of tuples 60 deep: hashing it takes for ever."""
    nested = b"(K\x00K\x00tq\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(60))
    return archive(path, b"\x80\x02}" + nested + b"K\x01s.")


def endless_copies(path: Path) -> Path:
    """Write a list of 10,000 pairs and 100,000 orders to make a dictionary of it."""
    pairs = b"]q\x01(" + b"K\x00K\x00\x86" * 10_000 + b"e0"
    orders = b"h\x00h\x01\x85R0" * 100_000
    return archive(
        path, b"\x80\x02ccollections\nOrderedDict\nq\x000" + pairs + orders + b"N.", packed=True
    )


def equal_hashes(path: Path) -> Path:
    """Write a dictionary of 50,000 numbers whose hashes are all the same."""
    keys = (at * (2**61 - 1) for at in range(1, 50_001))
    entries = b"".join(b"\x8a\x0c" + key.to_bytes(12, "little") + b"N" for key in keys)
    return archive(path, b"\x80\x02}(" + entries + b"u.")


def endless_header(path: Path) -> Path:
    """Write what says to be an artefact, and is described by lists 60 deep: 2^60 of them."""
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested, nested]
    torch.save({"format": "prunecli", "format_version": 1, "digest": "", "plan": nested}, path)
    return path


def long_names(path: Path) -> Path:
    """Write 100,000 objects whose class has a name of 100 kB."""
    name = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000
    return archive(path, b"\x80\x04]" + name + b"q\x00(" + b"h\x00h\x00\x93" * 100_000 + b"ee.")


def nested_modules(path: Path) -> Path:
    """Write a module of two parts that are one and the same, 60 deep: 2^60 names."""
    module: torch.nn.Module = torch.nn.Linear(1, 1)
    for _ in range(60):
        module = torch.nn.Sequential(module, module)
    torch.save(module, path)
    return path


def endless_size(path: Path) -> Path:
    """Write a tensor whose size is a list of lists 60 deep: telling it takes for ever."""
    nested = b"]q\x00" + b"".join(
        b"]q" + bytes([at + 1]) + b"(h" + bytes([at]) + b"h" + bytes([at]) + b"e"
        for at in range(60)
    )
    words = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    storage = words + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"
    call = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"K\x00h\x3c\x85h\x3c\x85tR."
    return archive(path, b"\x80\x02" + nested + call, data=bytes(8))


def long_string(path: Path) -> Path:
    """Write a plain pickle that says that 7 GB of text follow."""
    path.write_bytes(b"\x80\x04\x8d" + struct.pack("<Q", GIGABYTES) + b"abc")
    return path


def deep_json(path: Path) -> Path:
    """Write a safetensors file whose description is 100,000 lists in one another."""
    text = "[" * 100_000
    header = json.dumps({"__metadata__": {"prunecli": text}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def long_header(path: Path) -> Path:
    """Write a safetensors file with a header of 90 MB."""
    header = json.dumps({"__metadata__": {"a": "b" * 90_000_000}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def with_holes(path: Path) -> Path:
    """Write a legacy checkpoint that is followed by a terabyte of nothing."""
    torch.save({"w": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    os.truncate(path, 10**12)
    return path


CHECKPOINTS = {
    "a description of 0.5 GB in a small zip": deflated,
    "2^50 numbers from 8 kB": expanded,
    "2^50 numbers from 8 kB, old format": lambda path: expanded(path, old=True),
    "a storage of 7 GB that is not there": short_storage,
    "a storage of 7 GB that is not there, old format": lambda path: short_storage(path, old=True),
    "a tensor beyond its storage": beyond_storage,
    "bytearray of 7 GB": array_of_bytes,
    "a key that takes for ever": endless_key,
    "one list copied 100,000 times": endless_copies,
    "50,000 keys with one hash": equal_hashes,
    "2^60 parts of a module": nested_modules,
    "100,000 long names": long_names,
    "2^60 lists in a description": endless_header,
    "a size that takes for ever": endless_size,
    "a string of 7 GB that is not there": long_string,
    "JSON 100,000 deep": deep_json,
    "a header of 90 MB": long_header,
    "a terabyte of holes": with_holes,
}
"""Makers of checkpoints by what is wrong with them."""


def array_header(path: Path) -> Path:
    """Write a `.npz` whose array is said to have 7 GB."""
    head = io.BytesIO()
    npy.write_array_header_1_0(
        head, {"shape": (GIGABYTES // 8,), "fortran_order": False, "descr": "<f8"}
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", head.getvalue())
        file.writestr("y.npy", head.getvalue())
    return path


def array_bomb(path: Path) -> Path:
    """Write a `.npz` of half a gigabyte of zeros in half a megabyte."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("x.npy", "w", force_zip64=True) as stream:
            npy.write_array_header_1_0(
                stream, {"shape": (UNPACKED // 8, 8), "fortran_order": False, "descr": "|u1"}
            )
            for _ in range(UNPACKED // 2**24):
                stream.write(bytes(2**24))
        with file.open("y.npy", "w") as stream:
            npy.write_array(stream, np.zeros(5))
    return path


def gzip_bomb(folder: Path) -> Path:
    """Write MNIST files of which one unpacks to half a gigabyte."""
    folder.mkdir()
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb", compresslevel=1) as stream:
        for _ in range(UNPACKED // 2**24):
            stream.write(bytes(2**24))
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\0")
    return folder


def endless_array(folder: Path) -> Path:
    """Write a CIFAR batch that asks for an array of 7 GB before it fills it."""
    folder.mkdir()
    call = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n("
    batch = b"\x80\x02}X\x04\x00\x00\x00data" + call + b"\x8a\x05"
    batch += GIGABYTES.to_bytes(5, "little") + b"tU\x01btRs."
    names = pickle.dumps({"label_names": ["a", "b"]}, protocol=2)
    (folder / "data_batch_1").write_bytes(batch)
    (folder / "batches.meta").write_bytes(names)
    return folder


def long_table(path: Path) -> Path:
    """Write a table that is 7 GB of nothing behind one line."""
    path.write_text("a.png,cat\n")
    os.truncate(path, GIGABYTES)
    return path


DATA = {
    "arrays of 7 GB that are not there": (array_header, "x.npz"),
    "arrays of 0.5 GB in a small zip": (array_bomb, "x.npz"),
    "0.5 GB of gzip": (gzip_bomb, "mnist"),
    "an array of 7 GB in a pickle": (endless_array, "cifar"),
    "a table with holes": (long_table, "t.csv"),
}
"""Makers of data sets by what is wrong with them, and what to call them."""
