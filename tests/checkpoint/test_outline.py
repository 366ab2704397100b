"""What is told of a file without torch is what torch reads from it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunecli.checkpoint import load, save
from prunecli.checkpoint.headers import TensorHeader, is_tensor
from prunecli.checkpoint.outline import outline
from prunecli.errors import LoadRefusedError

KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8)


def tensors():
    base = torch.arange(60, dtype=torch.float32)
    found = {f"of.{str(kind)[6:]}": torch.ones(3, 4, dtype=kind) for kind in KINDS}
    return {
        **found,
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 5),
        "view": base[10:40].reshape(5, 6),
        "turned": base.reshape(6, 10).T,
        "parameter": nn.Parameter(torch.ones(2, 2)),
    }


def headers(found):
    return {
        name: TensorHeader(str(value.dtype)[6:], tuple(value.shape))
        for name, value in found.items()
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_types_shapes_and_plain_data_are_those_of_torch_load(tmp_path, zipped):
    path = tmp_path / "m.pt"
    content = {"epoch": 3, "state_dict": tensors(), "args": {"lr": 0.1, "names": ["a", "b"]}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read = torch.load(path, weights_only=True)
    found = outline(path).value
    assert found["state_dict"] == headers(read["state_dict"])
    assert {k: v for k, v in found.items() if k != "state_dict"} == {
        k: v for k, v in read.items() if k != "state_dict"
    }


def test_types_and_shapes_of_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    own = {name: value.detach().clone().contiguous() for name, value in tensors().items()}
    save_file(own, path)
    assert outline(path).value == headers(own)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_an_artefact_is_told_as_load_reads_it(tmp_path, make_checkpoint, suffix):
    path = tmp_path / f"m{suffix}"
    masked = make_checkpoint("digits_vgg")
    name = max(masked.tensors, key=lambda key: masked.tensors[key].numel())
    mask = torch.rand(masked.tensors[name].shape) > 0.75
    packed = dataclasses.replace(
        masked,
        tensors={**masked.tensors, name: masked.tensors[name] * mask},
        masks={name: mask},
    )
    for checkpoint, zeros in ((masked, None), (packed, 1 - float(mask.double().mean()))):
        save(checkpoint, path)
        found, read = outline(path), load(path)
        assert found.checkpoint is not None
        assert found.sha256 == read.sha256
        assert found.checkpoint.tensors == headers(read.checkpoint.tensors)
        for field in ("architecture", "input", "classes", "metadata", "plan", "graph"):
            assert getattr(found.checkpoint, field) == getattr(read.checkpoint, field)
        assert found.sparsity == (None if zeros is None else pytest.approx(zeros))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_bit_that_flipped_is_noticed_as_load_notices_it(tmp_path, make_checkpoint, suffix, part):
    path = tmp_path / f"m{suffix}"
    save(make_checkpoint("digits_vgg"), path)
    content = bytearray(path.read_bytes())
    content[int(part * len(content))] ^= 16
    path.write_bytes(bytes(content))
    errors = []
    for read in (outline, load):
        with pytest.raises(LoadRefusedError) as caught:
            read(path)
        errors.append((caught.value.code, caught.value.exit_code))
    assert errors[0] == errors[1]


def test_an_artefact_whose_weights_were_exchanged_is_noticed(tmp_path, make_checkpoint):
    path = tmp_path / "m.pt"
    save(make_checkpoint("digits_vgg"), path)
    content = torch.load(path, weights_only=True)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = content["state_dict"][name] + 1
    torch.save(content, path)  # its own checksums are right again
    with pytest.raises(LoadRefusedError, match="something in it has changed"):
        outline(path)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.register_buffer("table", torch.ones(5), persistent=False)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_a_whole_module_is_described_and_not_run(tmp_path, zipped, wrapped):
    path, net = tmp_path / "m.pt", Net()
    content = {"model": net, "epoch": 1} if wrapped else net
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = outline(path)
    assert found.whole("model" if wrapped else "") == f"{Net.__module__}.Net"
    assert (found.value["model"] if wrapped else found.value) == headers(net.state_dict())


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_runs_code_is_refused_as_by_load_and_runs_none(tmp_path, zipped):
    path, marker = tmp_path / "m.pt", tmp_path / "made"
    content = {"state_dict": {"w": torch.ones(2)}, "more": Harmful(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for read in (outline, load):
        with pytest.raises(LoadRefusedError) as caught:
            read(path)
        assert caught.value.code == "UNSAFE_PICKLE"
    assert not marker.exists()


def test_a_module_with_harmful_code_beside_it_is_refused(tmp_path):
    path, marker = tmp_path / "m.pt", tmp_path / "made"
    net = Net()
    net.more = Harmful(marker)
    torch.save(net, path)
    with pytest.raises(LoadRefusedError) as caught:
        outline(path)
    assert caught.value.code == "UNSAFE_PICKLE"
    assert not marker.exists()


def test_a_header_is_a_tensor_and_plain_data_is_none():
    assert is_tensor(TensorHeader("float32", (2,)))
    assert is_tensor(torch.ones(1))
    assert not any(map(is_tensor, (1, [1.0], {"a": 1}, None, object())))
