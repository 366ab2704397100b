"""A checkpoint that is written comes back as it was, and the real ones load."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import build_dense
from prunecli.checkpoint import Checkpoint, load, save
from prunecli.errors import InputError, LoadRefusedError
from prunecli.plan import PruningPlan

SUFFIXES = (".pt", ".pth", ".safetensors")


def assert_same(first: Checkpoint, second: Checkpoint) -> None:
    assert first.architecture == second.architecture
    assert first.input == second.input
    assert first.plan == second.plan
    assert first.graph == second.graph
    assert first.classes == second.classes
    assert first.metadata == second.metadata
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert tensor.dtype == second.tensors[name].dtype
        assert torch.equal(tensor, second.tensors[name]), name


def full_checkpoint(make_checkpoint) -> Checkpoint:
    plan = PruningPlan(
        fingerprint="abc",
        keep={"conv1": (0, 1, 2, 5)},
        slices={"conv1.weight": {0: (0, 1, 2, 5)}},
        signal="l2",
        budget={"flops": {"fraction": 0.5}},
        seed=3,
    )
    return replace(
        make_checkpoint("digits_vgg"),
        plan=plan,
        classes=("zero", "ünö", "two"),
        metadata={"command": "prunecli prune", "accuracy": 0.91, "versions": {"torch": "2"}},
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_everything_in_an_artefact_comes_back(suffix, tmp_path, make_checkpoint):
    checkpoint = full_checkpoint(make_checkpoint)
    save(checkpoint, tmp_path / f"a{suffix}")
    loaded = load(tmp_path / f"a{suffix}")
    assert loaded.warnings == ()
    assert_same(loaded.checkpoint, checkpoint)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_checkpoint_writes_the_same_bytes(suffix, tmp_path, make_checkpoint):
    first, again, loaded = (tmp_path / f"{name}{suffix}" for name in ("first", "again", "loaded"))
    save(full_checkpoint(make_checkpoint), first)
    save(full_checkpoint(make_checkpoint), again)
    save(load(first).checkpoint, loaded)
    assert first.read_bytes() == again.read_bytes() == loaded.read_bytes()


def test_a_pt_artefact_is_a_dict_that_plain_torch_reads(tmp_path, make_checkpoint):
    checkpoint = full_checkpoint(make_checkpoint)
    save(checkpoint, tmp_path / "a.pt")
    value = torch.load(tmp_path / "a.pt", weights_only=True)
    assert value["architecture"] == {"name": "digits_vgg", "kwargs": {"num_classes": 10}}
    build_dense(checkpoint.architecture, device="cpu").load_state_dict(value["state_dict"])


def test_a_safetensors_artefact_describes_itself_in_its_header(tmp_path, make_checkpoint):
    save(full_checkpoint(make_checkpoint), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["prunecli"])["classes"] == ["zero", "ünö", "two"]


def test_tied_and_channels_last_and_sliced_tensors_are_saved_by_value(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 2, 2)
    tensors = {
        "a": base,
        "b": base,
        "c": base.to(memory_format=torch.channels_last),
        "d": base[:, 1:2],
        "e": base.expand(5, 2, 3, 2, 2),
    }
    spec = InputSpec(3, 4, 4, (0.0,) * 3, (1.0,) * 3)
    checkpoint = Checkpoint(ArchitectureRef("graph"), tensors, spec, graph={"nodes": []})
    for suffix in SUFFIXES:
        save(checkpoint, tmp_path / f"a{suffix}")
        assert_same(load(tmp_path / f"a{suffix}").checkpoint, checkpoint)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool])
SHAPES = st.lists(st.integers(0, 4), max_size=4)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(
    layout=st.dictionaries(
        NAMES.filter(lambda name: name != "__metadata__"),
        st.tuples(SHAPES, DTYPES),
        max_size=5,
    ),
    metadata=st.dictionaries(NAMES, JSON_VALUES, max_size=3),
    suffix=st.sampled_from(SUFFIXES),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_load_after_save_is_the_identity(layout, metadata, suffix, tmp_path):
    tensors = {
        name: (torch.arange(int(np.prod(shape))).reshape(shape) % 7).to(dtype)
        for name, (shape, dtype) in layout.items()
    }
    spec = InputSpec(1, 8, 8, (0.5,), (0.25,))
    checkpoint = Checkpoint(
        ArchitectureRef("resnet18", {"num_classes": 3}), tensors, spec, metadata=metadata
    )
    save(checkpoint, tmp_path / f"a{suffix}")
    assert_same(load(tmp_path / f"a{suffix}").checkpoint, checkpoint)


def test_size_and_normalisation_can_be_overridden(digits_checkpoint):
    spec = load(digits_checkpoint, input_size=(16, 12), mean=[0.1], std=[0.2]).checkpoint.input
    assert spec == InputSpec(1, 16, 12, (0.1,), (0.2,))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"mean": (0.1, 0.2)}, "mean needs 1 numbers"),
        ({"std": (0.1, 0.2)}, "std needs 1 numbers"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"input_size": (0, 8)}, "no pixels"),
    ],
)
def test_an_impossible_override_is_refused(override, message, digits_checkpoint):
    with pytest.raises(InputError, match=message) as caught:
        load(digits_checkpoint, **override)
    assert caught.value.code == "BAD_INPUT_SPEC"


def test_an_artefact_of_a_later_format_is_refused(tmp_path, digits_checkpoint):
    value = torch.load(digits_checkpoint, weights_only=True)
    torch.save({**value, "format_version": 99}, tmp_path / "new.pt")
    with pytest.raises(LoadRefusedError, match="format 99") as caught:
        load(tmp_path / "new.pt")
    assert caught.value.code == "FORMAT_VERSION"


@pytest.mark.parametrize(
    "damage",
    [
        {"architecture": None},
        {"architecture": {"name": "digits_resnet"}},
        {"input": {"channels": "many"}},
        {"metadata": 3},
        {"state_dict": [1, 2]},
        {"state_dict": {"a": 1}},
        {"plan": 7},
        {"graph": 7},
    ],
    ids=str,
)
def test_a_damaged_description_is_an_error_with_a_code(damage, tmp_path, digits_checkpoint):
    value = torch.load(digits_checkpoint, weights_only=True)
    torch.save({**value, **damage}, tmp_path / "bad.pt")
    with pytest.raises((LoadRefusedError, InputError)) as caught:
        load(tmp_path / "bad.pt")
    assert caught.value.code in {"CORRUPT_FILE", "BAD_PLAN"}


def test_an_artefact_keeps_to_its_architecture(digits_checkpoint):
    with pytest.raises(InputError, match="digits_resnet, not resnet50"):
        load(digits_checkpoint, architecture="resnet50")
    load(digits_checkpoint, architecture="digits_resnet")


def test_an_artefact_with_a_factory_is_not_used_unless_somebody_asks(tmp_path, make_checkpoint):
    """Otherwise a stranger's artefact could have any function called: `os:system`."""
    checkpoint = replace(
        make_checkpoint("digits_vgg"),
        architecture=ArchitectureRef("os:system", {"command": f"touch {tmp_path}/ran"}),
    )
    save(checkpoint, tmp_path / "a.safetensors")
    with pytest.raises(LoadRefusedError, match="import and call os:system") as caught:
        load(tmp_path / "a.safetensors")
    assert caught.value.code == "UNTRUSTED_FACTORY"
    assert "--arch os:system" in caught.value.hint
    assert not (tmp_path / "ran").exists()
    own = checkpoint.architecture
    with pytest.raises(InputError, match="the argument command=touch"):
        load(tmp_path / "a.safetensors", architecture=own.name)
    found = load(tmp_path / "a.safetensors", architecture=own.name, architecture_args=own.kwargs)
    assert found.checkpoint.architecture == own


def test_loading_imports_no_torchvision(digits_checkpoint):
    script = (
        "import sys; from prunecli.checkpoint import load, build_dense\n"
        f"c = load({str(digits_checkpoint)!r}).checkpoint; build_dense(c.architecture)\n"
        "print('torchvision' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("file", "depth"),
    [
        ("resnet20.th", 20),
        ("resnet32.th", 32),
        ("resnet44.th", 44),
        ("resnet56.th", 56),
        ("resnet20-jpeg.pt", 20),
        ("resnet56-jpeg.pt", 56),
    ],
)
def test_the_public_cifar_checkpoints_load_without_being_told_what_they_are(
    file, depth, shared_dir
):
    loaded = load(shared_dir / "checkpoints" / file)
    checkpoint = loaded.checkpoint
    assert checkpoint.architecture == ArchitectureRef(f"cifar_resnet{depth}", {"num_classes": 10})
    assert checkpoint.input.shape == (3, 32, 32)
    assert loaded.warnings == ()
    build_dense(checkpoint.architecture, device="cpu").load_state_dict(dict(checkpoint.tensors))


def test_the_accuracy_that_a_file_claims_is_kept(shared_dir):
    metadata = load(shared_dir / "checkpoints" / "resnet20.th").checkpoint.metadata
    assert metadata["claimed_accuracy"] == {"best_prec1": pytest.approx(91.78)}
    assert metadata["source"]["sha256"].startswith("12fca82f")


@pytest.mark.parametrize(
    ("file", "published"), [("resnet20.th", 0.8100), ("resnet20-jpeg.pt", 0.8848)]
)
def test_a_real_checkpoint_reaches_its_accuracy_on_real_images(
    file, published, shared_dir, cifar_dir
):
    checkpoint = load(shared_dir / "checkpoints" / file).checkpoint
    module = build_dense(checkpoint.architecture, device="cpu")
    module.load_state_dict(dict(checkpoint.tensors))
    folders = sorted((cifar_dir / "test").iterdir())
    files = [(p, label) for label, f in enumerate(folders) for p in sorted(f.iterdir())[:40]]
    pixels = np.stack([np.asarray(Image.open(path)) for path, _ in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (checkpoint.input.mean, checkpoint.input.std)
    )
    with torch.no_grad():
        predicted = module((images - mean) / std).argmax(1)
    accuracy = (predicted == torch.tensor([label for _, label in files])).float().mean().item()
    assert accuracy == pytest.approx(
        published, abs=0.05
    )  # 400 images: two standard errors are 0.04


def test_a_description_that_is_no_plain_data_is_damaged(tmp_path, digits_checkpoint):
    from pathlib import PurePosixPath

    value = torch.load(digits_checkpoint, weights_only=True)
    value["metadata"]["command"] = PurePosixPath("/tmp")
    torch.save(value, tmp_path / "odd.pt")
    with pytest.raises(LoadRefusedError, match="not plain data") as caught:
        load(tmp_path / "odd.pt")
    assert caught.value.code == "CORRUPT_FILE"
