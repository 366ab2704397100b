"""What stands beside the weights is read as data: nothing of it runs, and nothing is refused."""

from __future__ import annotations

import argparse
import copyreg
import enum
import functools
import io
import os
import pathlib
import pickle
import struct
from collections import Counter, OrderedDict, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from prunecli.checkpoint import load
from prunecli.checkpoint.inert import InertUnpickler, Stub
from prunecli.checkpoint.torch_files import read_legacy, read_zip
from prunecli.errors import LoadRefusedError
from prunecli.files import BoundedReader
from tests.support.strangers import legacy as written_by_hand


class Colour(enum.Enum):
    """An enumeration of the user's."""

    RED = "red"


class Options(dict):
    """A dict with a class of its own, as configuration libraries have them."""


class Names(list):
    """A list with a class of its own."""


class Slotted:
    """An object without a dict of attributes."""

    __slots__ = ("rate",)

    def __init__(self) -> None:
        self.rate = 0.1


class Loud:
    """Says when it is made anew, called or filled."""

    def __new__(cls, *_, **__):
        Loud.made += 1
        return super().__new__(cls)

    def __setstate__(self, state):
        Loud.made += 1

    def __getnewargs_ex__(self):
        return (1,), {"key": 2}

    made = 0


HARMLESS = {
    "path": pathlib.PurePosixPath("/data/images"),
    "partial": functools.partial(nn.Conv2d, kernel_size=3),
    "enum": Colour.RED,
    "namespace": argparse.Namespace(lr=0.1),
    "simple": SimpleNamespace(lr=0.1),
    "scalar": np.float32(0.5),
    "array": np.arange(6).reshape(2, 3),
    "class": torch.optim.SGD,
    "function": nn.functional.relu,
    "method": nn.ReLU().forward,
    "optimiser": torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1),
    "transform": [nn.ReLU(), nn.Sequential(nn.Linear(2, 2))],
    "dict": Options(lr=0.1),
    "list": Names(["a", "b"]),
    "slots": Slotted(),
    "keys": {Colour.RED: 1, pathlib.PurePosixPath("a"): 2, (1, Colour.RED): 3},
    "sets": [{1, 2}, frozenset({Colour.RED})],
    "counts": [Counter("aab"), defaultdict(list, a=[1])],
    "types": [int, list, torch.float16, torch.Size([2, 3]), torch.device("cpu"), 1j, range(3)],
    "bytes": [b"abc", bytearray(b"abc")],
    "pattern": __import__("re").compile("a+"),
    "slice": slice(1, 2),
}


@pytest.fixture
def tensors(make_checkpoint):
    return dict(make_checkpoint("digits_vgg").tensors)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("what", HARMLESS)
def test_what_training_scripts_save_beside_the_weights_does_not_matter(
    what, protocol, legacy, tmp_path, tensors
):
    torch.save(
        {"hyper_parameters": {what: HARMLESS[what]}, "state_dict": tensors},
        tmp_path / "m.pt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    loaded = load(tmp_path / "m.pt")
    assert loaded.checkpoint.architecture.name == "digits_vgg"
    assert loaded.warnings == ()
    for name, tensor in loaded.checkpoint.tensors.items():
        assert torch.equal(tensor, tensors[name])


def test_no_code_of_a_class_in_the_file_runs(tmp_path, tensors):
    torch.save({"state_dict": tensors, "loud": [Loud(), Loud()]}, tmp_path / "m.pt")
    Loud.made = 0
    load(tmp_path / "m.pt")
    assert Loud.made == 0
    load(tmp_path / "m.pt", allow_pickle=True)
    assert Loud.made > 0


ATTACKS = [
    (os.system, ("true",)),
    (eval, ("1",)),
    (exec, ("1",)),
    (__import__("subprocess").Popen, (["true"],)),
    (__import__("shutil").rmtree, ("/nowhere",)),
    (__import__("runpy").run_path, ("/nowhere",)),
    (open, ("/nowhere", "w")),
    (torch.hub.load, ("a/b", "c")),
]


class Attack:
    """Pickles as a call."""

    def __init__(self, function, arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack[0].__name__)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_signs_of_a_break_in_are_refused_wherever_they_are(attack, legacy, tmp_path, tensors):
    torch.save(
        {"state_dict": tensors, "args": [functools.partial(print, Attack(*attack))]},
        tmp_path / "m.pt",
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(LoadRefusedError, match=attack[0].__name__) as caught:
        load(tmp_path / "m.pt")
    assert (caught.value.code, caught.value.exit_code) == ("UNSAFE_PICKLE", 4)


def read(content: bytes):
    """Return what a pickle holds as data."""
    reader = BoundedReader(io.BytesIO(content), size=len(content), path=pathlib.Path("m.pt"))
    return InertUnpickler(reader, functions={}, most=len(content)).load()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_what_pickle_makes_of_it(protocol):
    values = {
        "a": [1, -5, 2**80, 1.5, True, None, "text \u20ac", b"bytes", (), (1,), (1, 2, 3, 4)],
        "b": OrderedDict([("x", {1, 2}), ("y", {})]),
        3: {"deep": [[[["end"]]]]},
        (1, "k"): bytearray(b"xyz"),
    }
    shared = [1]
    values["shared"] = [shared, shared]
    found = read(pickle.dumps(values, protocol=protocol))
    assert found == values
    assert found["shared"][0] is found["shared"][1]
    assert list(found["b"]) == ["x", "y"]


@pytest.mark.parametrize("protocol", range(6))
def test_objects_become_records_of_their_state(protocol):
    found = read(pickle.dumps(argparse.Namespace(lr=0.1, path=["a"]), protocol=protocol))
    assert isinstance(found, Stub)
    assert (found.name, found.fields) == ("argparse.Namespace", {"lr": 0.1, "path": ["a"]})
    found = read(pickle.dumps(Options(lr=0.1), protocol=protocol))
    assert found.name.endswith("Options")
    assert found.fields == {"lr": 0.1}
    if protocol > 1:  # older ones hand the whole list to its class
        assert read(pickle.dumps(Names("ab"), protocol=protocol)).members == ["a", "b"]
    assert not callable(found)


@pytest.mark.parametrize("number", [np.float64(0.25), np.float32(-1.5), np.int16(-3), np.bool_(1)])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_numbers_of_numpy_are_numbers(number, protocol):
    found = read(pickle.dumps(number, protocol=protocol))
    assert found == number
    assert type(found) in {int, float, bool}


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02cposix\nsystem\n.",  # named only
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x02]cbuiltins\neval\n\x85R.",  # calls a list
        b"\x80\x02}K\x01\x85R.",
        b"\x80\x02K\x01K\x02a.",  # appends to a number
        b"\x80\x02K\x01K\x02K\x03s.",
        b"\x80\x02\x82\x01.",  # the registry of extensions
        b"\x80\x05\x97.",  # buffers from outside
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00a.",  # a long array of bytes
        b"\x80\x02ccollections\nOrderedDict\n]R.",  # arguments that are no tuple
        b"\x80\x02(cbuiltins\nset\nK\x01o.",
        b"\x80\x02}(}K\x01u.",  # a dict as a key
    ],
)
def test_odd_pickles_give_records_or_errors_and_nothing_else(content):
    try:
        found = read(content)
    except (ValueError, TypeError, KeyError, EOFError, pickle.UnpicklingError, IndexError):
        return
    assert isinstance(found, Stub)


def test_extensions_that_are_registered_are_not_used():
    copyreg.add_extension("posix", "system", 0x77)
    try:
        with pytest.raises(KeyError):
            read(b"\x80\x02\x82\x77.")
    finally:
        copyreg.remove_extension("posix", "system", 0x77)


TENSORS = {
    "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
    "bfloat": torch.tensor([1.5, -2]).bfloat16(),
    "whole": torch.arange(4),
    "flags": torch.tensor([True, False]),
    "scalar": torch.tensor(3.25),
    "empty": torch.zeros(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).t(),
    "part": torch.arange(10.0)[3:7],
    "expanded": torch.ones(1, 3).expand(4, 3),
    "parameter": nn.Parameter(torch.arange(3.0)),
    "buffer": nn.Buffer(torch.arange(3.0)),
    "short": torch.tensor([1, 65000], dtype=torch.uint16),
    "complex": torch.tensor([1 + 2j]),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_are_what_torch_reads(legacy, tmp_path):
    values = {**TENSORS}
    if legacy:
        del values["short"]  # has no storage of its own in the old format
    values["tied"] = values["part"]
    path = tmp_path / "m.pt"
    torch.save(values, path, _use_new_zipfile_serialization=not legacy)
    found = (read_legacy if legacy else read_zip)(path)
    expected = torch.load(path, weights_only=True)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor.detach()), name
    assert found["tied"].data_ptr() == found["part"].data_ptr()


def test_numbers_in_the_other_byte_order_are_turned(tmp_path):
    import zipfile

    torch.save({"w": torch.tensor([1.0, 2.0])}, tmp_path / "little.pt")
    with (
        zipfile.ZipFile(tmp_path / "little.pt") as source,
        zipfile.ZipFile(tmp_path / "big.pt", "w") as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            if name.endswith("data/0"):
                content = np.frombuffer(content, "<f4").astype(">f4").tobytes()
            target.writestr(name, content)
    assert read_zip(tmp_path / "big.pt")["w"].tolist() == [1.0, 2.0]


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04"
)
FOUR = struct.pack("<q4f", 4, 1, 2, 3, 4)
OLD = {
    # Before torch 0.2 a tensor was made empty, and filled from its state.
    "state": b"ctorch\nFloatTensor\n)\x81q\x05("
    + STORAGE
    + b"NtQK\x00K\x02K\x02\x86K\x02K\x01\x86tb",
    # A storage could be a part of another, here of its second and third number.
    "view": b"ctorch._utils\n_rebuild_tensor\n("
    + STORAGE
    + b"(X\x01\x00\x00\x001K\x01K\x02ttQK\x00K\x02\x85K\x01\x85tR",
}


@pytest.mark.parametrize("how", OLD)
def test_tensors_of_the_first_versions_are_what_torch_reads(how, tmp_path):
    path = written_by_hand(
        tmp_path / "m.th", b"\x80\x02}X\x01\x00\x00\x00w" + OLD[how] + b"s.", tail=FOUR
    )
    found, expected = read_legacy(path)["w"], torch.load(path, weights_only=True)["w"]
    assert found.tolist() == expected.tolist() == {"state": [[1, 2], [3, 4]], "view": [2, 3]}[how]


@pytest.mark.parametrize(
    ("at", "wrong"),
    [(b"K\x01K\x02tt", b"K\x03K\x02tt"), (b"cpuK\x04", b"cpuK\x05"), (b"QK\x00", b"QK\x01")],
)
def test_parts_of_storages_that_are_not_there_are_errors(at, wrong, tmp_path):
    text = OLD["view"].replace(at, wrong)
    assert text != OLD["view"]
    path = written_by_hand(
        tmp_path / "m.th", b"\x80\x02}X\x01\x00\x00\x00w" + text + b"s.", tail=FOUR
    )
    with pytest.raises(LoadRefusedError) as caught:
        load(path)
    assert caught.value.code == "CORRUPT_FILE"
