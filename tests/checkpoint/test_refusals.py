"""Files that cannot or must not be read are refused by name, and nothing in them is run."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from prunecli.architectures.registry import build_dense
from prunecli.checkpoint import load, save
from prunecli.errors import InputError, LoadRefusedError, PruneError


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


def legacy_save(value, path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def plain_pickle(protocol: int):
    def dump(value, path) -> None:
        path.write_bytes(pickle.dumps(value, protocol=protocol))

    return dump


WRITERS = {
    "zip": torch.save,
    "legacy": legacy_save,
    **{f"pickle{protocol}": plain_pickle(protocol) for protocol in range(6)},
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS.keys())
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(writer, tmp_path):
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pt"
    writer({"fc.weight": 1.0, "evil": Touch(str(marker))}, path)
    with pytest.raises(LoadRefusedError, match=r"(posix|nt)\.system") as caught:
        load(path)
    error = caught.value
    assert (error.code, error.exit_code) == ("UNSAFE_PICKLE", 4)
    assert "--arch" in error.hint
    assert "--allow-pickle" in error.hint
    assert not marker.exists()


def test_code_is_run_only_when_it_is_allowed(tmp_path, make_checkpoint):
    """The counterpart of the test above: its file does run when somebody lets it."""
    marker = tmp_path / "ran"
    tensors = dict(make_checkpoint("digits_vgg").tensors)
    torch.save({"state_dict": tensors, "evil": Touch(str(marker))}, tmp_path / "evil.pt")
    loaded = load(tmp_path / "evil.pt", allow_pickle=True)
    assert marker.exists()
    assert "--allow-pickle" in loaded.warnings[0]
    assert loaded.checkpoint.architecture.name == "digits_vgg"


class Opaque(nn.Module):
    """A module of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)


def test_a_pickled_module_of_unknown_code_is_read_and_asks_for_its_architecture(tmp_path):
    torch.save(Opaque(), tmp_path / "m.pt")
    with pytest.raises(InputError, match="these 2 tensors fit no architecture") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "UNKNOWN_ARCHITECTURE"


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickled_module_gives_its_weights_when_that_is_allowed(
    protocol, tmp_path, make_checkpoint
):
    checkpoint = make_checkpoint("digits_resnet")
    module = build_dense(checkpoint.architecture, device="cpu")
    module.load_state_dict(dict(checkpoint.tensors))
    torch.save({"model": module, "epoch": 3}, tmp_path / "m.pt", pickle_protocol=protocol)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(module, protocol=protocol))
    for name in ("m.pt", "m.pkl"):
        loaded = load(tmp_path / name, allow_pickle=True).checkpoint
        assert loaded.architecture == checkpoint.architecture
        assert all(torch.equal(t, checkpoint.tensors[n]) for n, t in loaded.tensors.items())


def test_a_pickle_whose_classes_are_gone_says_so(tmp_path):
    (tmp_path / "m.pkl").write_bytes(b"cnosuchmodule\nThing\n.")
    with pytest.raises(LoadRefusedError, match="nosuchmodule") as caught:
        load(tmp_path / "m.pkl", allow_pickle=True)
    assert caught.value.code == "PICKLE_FAILED"


def test_a_plain_pickle_of_tensors_is_refused(tmp_path):
    """Its tensors come through `torch.storage._load_from_bytes`, which unpickles anything."""
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"fc.weight": torch.ones(2, 2)}))
    with pytest.raises(LoadRefusedError, match="_load_from_bytes") as caught:
        load(tmp_path / "m.pkl")
    assert caught.value.code == "UNSAFE_PICKLE"


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "m.pt").touch()
    assert refusal(tmp_path / "m.pt").code == "EMPTY_FILE"


def test_torchscript_is_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces the end of TorchScript
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "m.pt")
    assert refusal(tmp_path / "m.pt").code == "TORCHSCRIPT"


def test_an_exported_program_is_named(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(
            torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), tmp_path / "m.pt2"
        )
    (tmp_path / "m.pt2").rename(tmp_path / "m.pt")  # the name does not matter
    assert refusal(tmp_path / "m.pt").code == "EXPORTED_PROGRAM"


def test_an_onnx_file_is_named(tmp_path):
    from onnx import TensorProto, helper, save_model

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["x2"])], "g", [value], [])
    for producer in ("pytorch", ""):
        save_model(helper.make_model(graph, producer_name=producer), tmp_path / "m.onnx")
        error = refusal(tmp_path / "m.onnx")
        assert error.code == "NOT_A_CHECKPOINT"
        assert "ONNX" in error.message


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "HDF5"),
        (b"hello, I am a text file\n", "not a checkpoint"),
        (bytes(range(256)) * 20, "not a checkpoint"),
        (b"\0", "not a checkpoint"),
        (bytes(257) + b"ustar" + bytes(300), "tar"),
        (pickle.dumps({"a": 1}), "plain pickle"),
        (pickle.dumps([1, 2], protocol=0), "plain pickle"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_not_checkpoints(data, word, tmp_path):
    (tmp_path / "m.pt").write_bytes(data)
    error = refusal(tmp_path / "m.pt")
    assert error.code == "NOT_A_CHECKPOINT"
    assert word in error.message


def test_a_zip_of_something_else_is_not_a_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("picture.png", b"...")
    assert refusal(tmp_path / "m.pt").code == "NOT_A_CHECKPOINT"


@pytest.mark.parametrize(
    "value",
    [
        {},
        [torch.zeros(2)],
        torch.zeros(2),
        {"epoch": 3, "lr": 0.1},
        {"optimizer": {"state": {0: {"step": torch.tensor(1)}}, "param_groups": []}},
        OrderedDict(),
        7,
    ],
    ids=["empty", "list", "tensor", "numbers", "optimizer", "ordered", "number"],
)
@pytest.mark.parametrize("writer", [torch.save, legacy_save], ids=["zip", "legacy"])
def test_a_file_without_a_state_dict_says_what_is_in_it(writer, value, tmp_path):
    writer(value, tmp_path / "m.pt")
    error = refusal(tmp_path / "m.pt")
    assert error.code == "NOT_A_CHECKPOINT"
    assert "no state dict" in error.message


def save_safetensors(value, path) -> None:
    from safetensors.torch import save_file

    save_file(value, path)


@pytest.mark.parametrize(
    "writer", [torch.save, legacy_save, save_safetensors], ids=["zip", "legacy", "safetensors"]
)
def test_a_file_cut_short_anywhere_is_corrupt(writer, tmp_path, make_checkpoint):
    whole = tmp_path / "m.pt"
    writer(dict(make_checkpoint("digits_mobilenet").tensors), whole)
    data = whole.read_bytes()
    cut = tmp_path / "cut.pt"
    for length in [1, 9, 40, 200, *range(1000, len(data) - 1, len(data) // 25), len(data) - 1]:
        cut.write_bytes(data[:length])
        error = refusal(cut)
        # With only a few bytes left, nothing tells what the file once was.
        expected = {"CORRUPT_FILE"} if length > 200 else {"CORRUPT_FILE", "NOT_A_CHECKPOINT"}
        assert error.code in expected, (length, error)


@pytest.mark.parametrize(
    "writer", [torch.save, legacy_save, save_safetensors], ids=["zip", "legacy", "safetensors"]
)
def test_flipped_bytes_never_end_in_anything_but_a_named_error(writer, tmp_path, make_checkpoint):
    whole = tmp_path / "m.pt"
    writer(dict(make_checkpoint("digits_vgg").tensors), whole)
    data = bytearray(whole.read_bytes())
    spots = torch.randint(0, 6000, (80,), generator=torch.Generator().manual_seed(0)).tolist()
    for spot in spots:
        damaged = bytearray(data)
        damaged[spot] ^= 0x5A
        (tmp_path / "bad.pt").write_bytes(damaged)
        with contextlib.suppress(PruneError):  # a flip in a weight may load; nothing else may fail
            load(tmp_path / "bad.pt")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path, code in ((tmp_path / "no.pt", "FILE_NOT_FOUND"), (tmp_path, "NOT_A_FILE")):
        with pytest.raises(InputError) as caught:
            load(path)
        assert caught.value.code == code


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("own", [True, False], ids=["artefact", "state dict"])
def test_weights_that_are_not_finite_are_refused_by_name(poison, own, tmp_path, make_checkpoint):
    checkpoint = make_checkpoint("digits_vgg")
    checkpoint.tensors["features.4.running_var"][3] = poison
    if own:
        save(checkpoint, tmp_path / "m.pt")
    else:
        torch.save(dict(checkpoint.tensors), tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"features\.4\.running_var \(1\)") as caught:
        load(tmp_path / "m.pt")
    assert (caught.value.code, caught.value.exit_code) == ("NAN_WEIGHTS", 2)


def test_large_finite_weights_are_not_taken_for_infinite(tmp_path, make_checkpoint):
    checkpoint = make_checkpoint("digits_vgg")
    checkpoint.tensors["classifier.1.weight"][:] = 3e38  # their sum overflows
    save(checkpoint, tmp_path / "m.pt")
    load(tmp_path / "m.pt")


def test_quantised_weights_are_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)
        torch.save({"fc.weight": weight}, tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"fc\.weight is quantised"):
        load(tmp_path / "m.pt")


def refusal(path) -> LoadRefusedError:
    with pytest.raises(LoadRefusedError) as caught:
        load(path)
    assert caught.value.exit_code == 4
    assert caught.value.where == str(path)
    assert caught.value.hint
    return caught.value
