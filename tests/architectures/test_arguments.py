"""What a file says about its architecture is passed on only where it can do no harm."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import textwrap

import pytest
import torch

from prunecli.architectures import skeleton
from prunecli.architectures.architecture import Architecture
from prunecli.architectures.arguments import FETCHING, whole
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import Checkpoint, load, save
from prunecli.errors import InputError, PruneError
from prunecli.verbs import evaluate

NAMES = tuple(entry.name for entry in ARCHITECTURES)
INPUT = InputSpec(3, 32, 32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def constructors(monkeypatch):
    """Return what constructors are called with, none of which is run."""
    called = []

    def find(reference):
        called.append(reference)
        return torch.nn.Identity

    monkeypatch.setattr(skeleton, "_find_factory", find)
    return called


VALUES = ("https://example.org/w.pth", "DEFAULT", True, {"url": "x"}, "/etc/passwd")


@pytest.mark.parametrize("name", NAMES)
def test_no_architecture_takes_an_argument_that_could_fetch(constructors, name):
    for argument, value in itertools.product((*FETCHING, "url", "model_name", "file"), VALUES):
        with pytest.raises(InputError) as caught:
            build_dense(ArchitectureRef(name, {argument: value}))
        assert caught.value.code == "ARGUMENT_REFUSED"
        assert argument in caught.value.message
    assert not constructors


@pytest.mark.parametrize("name", ["timm/resnet18", "timm/vit_tiny_patch16_224"])
@pytest.mark.parametrize("argument", sorted(FETCHING))
def test_nor_does_a_model_of_timm(constructors, name, argument):
    pytest.importorskip("timm")
    with pytest.raises(InputError, match="fetch weights"):
        build_dense(ArchitectureRef(name, {argument: "https://example.org/w.pth"}))
    assert not constructors


@pytest.mark.parametrize(
    ("name", "argument", "value", "told"),
    [
        ("resnet18", "num_classes", 10**9, "0..1000000"),
        ("cifar_resnet20", "num_classes", 10**9, "0..1000000"),
        ("resnet18", "num_classes", True, "whole number"),
        ("resnet18", "num_classes", -1, "0..1000000"),
        ("resnet18", "num_classes", float("nan"), "whole number"),
        ("resnet18", "width_per_group", 10**6, "1..4096"),
        ("vit_b_16", "image_size", 10**6, "1..8192"),
        ("densenet121", "growth_rate", 10**5, "1..1024"),
        ("mobilenet_v2", "width_mult", 1e9, "0.01..16"),
        ("cifar_resnet20", "depth", 10**6 * 6 + 2, "takes num_classes"),
        ("resnet18", "replace_stride_with_dilation", [True] * 9, "up to 3"),
        ("resnet18", "norm_layer", "os:system", "takes "),
    ],
)
def test_an_argument_beyond_its_bounds_is_refused_with_the_number(
    constructors, name, argument, value, told
):  # fmt: skip
    with pytest.raises(InputError) as caught:
        build_dense(ArchitectureRef(name, {argument: value}))
    assert caught.value.code == "ARGUMENT_REFUSED"
    assert f"{argument}={value}" in caught.value.message
    assert told in caught.value.message
    assert not constructors


def test_depth_and_classes_of_timm_have_bounds(constructors):
    pytest.importorskip("timm")
    for argument, value in (("depth", 10**6), ("num_classes", 10**9), ("img_size", [10**6, 1])):
        with pytest.raises(InputError, match="has to be") as caught:
            build_dense(ArchitectureRef("timm/vit_tiny_patch16_224", {argument: value}))
        assert caught.value.code == "ARGUMENT_REFUSED"
    assert not constructors


def test_an_architecture_of_a_plugin_takes_what_it_declares(extra_architecture):
    factory = "prunecli.architectures.cifar_resnet:cifar_resnet"
    entry = Architecture(factory, INPUT, arguments={"depth": 8})
    extra_architecture("plain", entry)
    with pytest.raises(InputError, match="plain takes num_classes"):
        build_dense(ArchitectureRef("plain", {"depth": 14}))
    wide = dataclasses.replace(entry, accepts={"depth": whole(8, 20)})
    extra_architecture("wide", wide)
    assert len(list(build_dense(ArchitectureRef("wide", {"depth": 14})).modules())) > 20
    with pytest.raises(InputError, match=r"8\.\.20"):
        build_dense(ArchitectureRef("wide", {"depth": 10**6}))


def artefact(path, architecture, *, dense=None, tensors=None):
    metadata = {} if dense is None else {"dense": dense}
    tensors = {"fc.weight": torch.zeros(2, 2)} if tensors is None else tensors
    save(Checkpoint(architecture, tensors, INPUT, metadata=metadata), path)
    return path


@pytest.mark.parametrize("argument", sorted(FETCHING))
def test_evaluating_an_artefact_that_names_an_address_opens_no_connection(
    tmp_path, monkeypatch, argument
):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    architecture = ArchitectureRef("resnet18", {argument: "https://example.org/w.pth"})
    path = artefact(tmp_path / "m.pt", architecture)
    with pytest.raises(InputError) as caught:
        evaluate(path, data="digits")
    assert caught.value.code == "ARGUMENT_REFUSED"


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """Return the reference of a factory that writes down its arguments."""
    (tmp_path / "own_nets.py").write_text(
        textwrap.dedent("""
            import torch
            CALLS = []
            def net(**arguments):
                CALLS.append(arguments)
                return torch.nn.Sequential(torch.nn.Linear(2, 2))
        """)
    )
    monkeypatch.chdir(tmp_path)
    yield "own_nets:net"
    sys.modules.pop("own_nets", None)


TENSORS = {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(2)}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("weights", "DEFAULT"),
        ("pretrained", True),
        ("source", "https://example.org/x"),
        ("file", "../../x.pth"),
        ("file", "x.pth"),
        ("width", 10**7),
        ("config", {"a": 1}),
        ("sizes", [1, [2, ["/etc"]]]),
    ],
)
@pytest.mark.parametrize("place", ["architecture", "dense"])
def test_a_file_gives_own_code_no_path_and_no_address(own_code, tmp_path, argument, value, place):
    risky = ArchitectureRef(own_code, {argument: value})
    plain = ArchitectureRef(own_code, {"width": 3})
    path = tmp_path / "m.pt"
    if place == "architecture":
        artefact(path, risky, tensors=TENSORS)
    else:
        artefact(path, plain, dense=risky.to_json(), tensors=TENSORS)
    with pytest.raises(InputError) as caught:
        load(path, architecture=own_code)
    assert caught.value.code == "ARGUMENT_REFUSED"
    assert f"--arch-arg {argument}" in caught.value.hint
    assert load(path, architecture=own_code, architecture_args={argument: value})


def test_own_code_gets_the_plain_arguments_of_a_file(own_code, tmp_path):
    kwargs = {"width": 3, "norm": "batch", "sizes": [1, 2], "bias": False, "rate": 0.5, "x": None}
    path = artefact(tmp_path / "m.pt", ArchitectureRef(own_code, kwargs), tensors=TENSORS)
    model = instantiate(load(path, architecture=own_code).checkpoint)
    assert model[0].weight.shape == (2, 2)
    assert sys.modules["own_nets"].CALLS[-1] == kwargs


@pytest.mark.parametrize("dense", [7, [], {"name": "resnet18"}, {"name": "x", "kwargs": 3}])
def test_a_dense_architecture_that_is_none_is_a_damaged_file(tmp_path, dense):
    path = artefact(tmp_path / "m.pt", ArchitectureRef("resnet18"), dense=dense)
    with pytest.raises(PruneError) as caught:
        load(path)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "change",
    [
        {"height": 10**9},
        {"channels": 0},
        {"width": -1},
        {"mean": [float("nan")] * 3},
        {"std": [float("inf")] * 3},
        {"height": 9000, "width": 9000},
    ],
)
def test_an_input_of_no_possible_size_is_a_damaged_file(tmp_path, change):
    spec = {**INPUT.to_json(), **change}
    with pytest.raises(ValueError, match=r"values|number"):
        InputSpec.from_json(spec)
