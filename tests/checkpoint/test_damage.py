"""A bit that flipped anywhere in a file is noticed, or changes nothing that is read."""

from __future__ import annotations

import random
import zipfile
from dataclasses import replace

import pytest
import torch

from prunecli.checkpoint import load, save
from prunecli.checkpoint.digest import digest
from prunecli.errors import LoadRefusedError, PruneError


def bits_of(checkpoint):
    return {name: value.numpy().tobytes() for name, value in checkpoint.tensors.items()}


def flipped(path, at, bit=3):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(bytes(content))


def place_of(path, values):
    """Return where in a file the bytes of a tensor lie."""
    (at,) = [at for at in [path.read_bytes().find(values.numpy().tobytes())] if at > 0]
    return at


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_bit_that_flipped_in_the_weights_of_an_artefact_is_noticed(
    tmp_path, make_checkpoint, suffix
):
    checkpoint = make_checkpoint("digits_vgg")
    path = tmp_path / f"m{suffix}"
    save(checkpoint, path)
    weight = max(checkpoint.tensors.values(), key=torch.Tensor.numel)
    flipped(path, place_of(path, weight) + 1001)
    with pytest.raises(LoadRefusedError) as caught:
        load(path)
    assert caught.value.code == "CORRUPT_FILE"


@pytest.mark.parametrize("seed", range(60))
def test_a_bit_that_flipped_anywhere_never_changes_what_is_read(tmp_path, make_checkpoint, seed):
    checkpoint = make_checkpoint("digits_vgg")
    path = tmp_path / ("m.pt" if seed % 2 else "m.safetensors")
    save(checkpoint, path)
    draw = random.Random(seed)
    flipped(path, draw.randrange(path.stat().st_size), draw.randrange(8))
    try:
        found = load(path).checkpoint
    except PruneError:
        return
    assert bits_of(found) == bits_of(checkpoint)
    assert (found.architecture, found.input) == (checkpoint.architecture, checkpoint.input)


def test_a_bit_in_the_weights_of_a_foreign_archive_is_noticed(tmp_path, make_checkpoint):
    tensors = dict(make_checkpoint("digits_vgg").tensors)
    torch.save(tensors, tmp_path / "m.pt")
    weight = max(tensors.values(), key=torch.Tensor.numel)
    flipped(tmp_path / "m.pt", place_of(tmp_path / "m.pt", weight) + 77)
    with pytest.raises(LoadRefusedError, match="CRC") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "CORRUPT_FILE"


def test_a_changed_archive_with_right_checksums_is_noticed_by_the_digest(tmp_path, make_checkpoint):
    checkpoint = make_checkpoint("digits_vgg")
    save(checkpoint, tmp_path / "m.pt")
    value = torch.load(tmp_path / "m.pt", weights_only=True)
    name = next(iter(value["state_dict"]))
    value["state_dict"][name].view(-1)[0] += 1
    torch.save(value, tmp_path / "m.pt")
    assert zipfile.ZipFile(tmp_path / "m.pt").testzip() is None
    with pytest.raises(LoadRefusedError, match="what was once written"):
        load(tmp_path / "m.pt")


def test_a_digest_sees_names_types_shapes_values_and_the_description():
    zeros = {"a": torch.zeros(2, 2), "b": torch.zeros(0)}
    seen = {
        digest({"x": 1}, zeros),
        digest({"x": 2}, zeros),
        digest({"x": 1}, {"c": zeros["a"], "b": zeros["b"]}),
        digest({"x": 1}, {**zeros, "a": zeros["a"].half()}),
        digest({"x": 1}, {**zeros, "a": zeros["a"].reshape(4)}),
        digest({"x": 1}, {**zeros, "a": -zeros["a"]}),
    }
    assert len(seen) == 6
    assert digest({"x": 1, "digest": "other"}, zeros) in seen
    assert digest({"x": 1}, {"b": zeros["b"], "a": zeros["a"].t()}) in seen
    assert digest({"x": 1}, {"a": torch.tensor(1.0).to(torch.bfloat16)}) not in seen


def test_an_artefact_without_a_digest_is_read_as_before(tmp_path, make_checkpoint):
    checkpoint = replace(make_checkpoint("digits_vgg"), metadata={})
    save(checkpoint, tmp_path / "m.pt")
    value = torch.load(tmp_path / "m.pt", weights_only=True)
    assert value.pop("digest").startswith("sha256:")
    torch.save(value, tmp_path / "m.pt")
    assert bits_of(load(tmp_path / "m.pt").checkpoint) == bits_of(checkpoint)
