"""Architectures are found from names and shapes, or it is said why not."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from torch import nn

from prunecli.architectures.architecture import Architecture
from prunecli.architectures.fingerprint import shapes_of, signature, similarity, sketch
from prunecli.architectures.lookup import compute_fingerprint, fingerprint_of, match_all
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.checkpoint import load
from prunecli.errors import InputError

TORCHVISION_SAMPLE = (
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vgg11_bn",
    "vit_b_16",
    "wide_resnet50_2",
)
OWN = tuple(name for name in ARCHITECTURES.names() if name.startswith(("cifar_", "digits_")))


@pytest.mark.parametrize("name", [*OWN, *TORCHVISION_SAMPLE])
def test_the_committed_index_agrees_with_a_fresh_build(name):
    """When this fails: python -m prunecli.architectures.make_index."""
    assert fingerprint_of(name) == compute_fingerprint(name)


def test_every_torchvision_classifier_is_in_the_index():
    import torchvision

    names = set(torchvision.models.list_models(module=torchvision.models))
    assert names <= set(ARCHITECTURES.names())


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_every_architecture_is_recognised_with_any_number_of_classes(name):
    shapes = shapes_of(build_dense(ArchitectureRef(name, {"num_classes": 37})).state_dict())
    (match,) = match_all(shapes)
    assert match.name == name
    assert match.arguments["num_classes"] == 37


@pytest.mark.parametrize("name", ["resnet18", "regnet_x_400mf", "swin_t", "googlenet", *OWN[:1]])
def test_a_dense_network_is_built_in_eval_mode_without_random_numbers(name):
    state = torch.random.get_rng_state()
    first, second = (build_dense(ArchitectureRef(name), device="cpu") for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.training
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) and one.isfinite().all() for one, other in pairs)


def test_what_is_not_random_is_built_as_its_constructor_says():
    import torchvision

    ours = build_dense(ArchitectureRef("swin_t"), device="cpu").state_dict()
    theirs = torchvision.models.swin_t(weights=None).state_dict()
    index = "features.1.0.attn.relative_position_index"
    assert torch.equal(ours[index], theirs[index])
    assert torch.equal(ours["features.0.2.weight"], theirs["features.0.2.weight"])


def test_a_meta_network_takes_no_memory():
    module = build_dense(ArchitectureRef("vgg16"), device="meta")
    assert all(tensor.is_meta for tensor in module.state_dict().values())


def test_the_padded_shortcut_is_the_published_one():
    """Every second pixel, and planes // 4 zero channels on each side."""
    from prunecli.architectures.cifar_resnet import PaddedShortcut

    x = torch.rand(2, 16, 8, 8)
    y = PaddedShortcut(16, 32, stride=2)(x)
    expected = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 32 // 4, 32 // 4))
    assert torch.equal(y, expected)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("digits_resnet", 500_000),
        ("digits_vgg", 500_000),
        ("digits_mobilenet", 500_000),
        ("digits_wide_resnet", 2_000_000),
    ],
)
def test_a_sample_model_is_small_and_maps_digits_to_logits(name, most):
    module = build_dense(ArchitectureRef(name), device="cpu")
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    assert size < most
    assert module(torch.zeros(3, *ARCHITECTURES.get(name).input.shape)).shape == (3, 10)


def test_the_number_of_classes_and_the_input_come_with_the_architecture(tmp_path):
    loaded = load_of("efficientnet_b1", tmp_path, num_classes=5)
    assert loaded.architecture == ArchitectureRef("efficientnet_b1", {"num_classes": 5})
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert loaded.input == InputSpec(3, 240, 240, mean, std)


def test_the_image_size_of_a_vision_transformer_is_read_off_its_positions():
    reference = ArchitectureRef("vit_b_32", {"num_classes": 10, "image_size": 384})
    (match,) = match_all(shapes_of(build_dense(reference).state_dict()))
    assert (match.name, match.arguments) == ("vit_b_32", reference.kwargs)


def test_auxiliary_heads_are_dropped_and_counted(tmp_path):
    import torchvision

    model = torchvision.models.googlenet(weights=None, init_weights=False, num_classes=10)
    torch.save(model.state_dict(), tmp_path / "m.pt")
    loaded = load(tmp_path / "m.pt")
    heads = sum(name.startswith("aux") for name in model.state_dict())
    dropped = next(note for note in loaded.warnings if "dropped" in note)
    assert int(dropped.split()[0]) == heads == 20
    assert not any(name.startswith("aux") for name in loaded.checkpoint.tensors)
    module = build_dense(loaded.checkpoint.architecture, device="cpu")
    module.load_state_dict(dict(loaded.checkpoint.tensors))


def test_a_switch_that_leaves_no_trace_in_the_weights_is_reported(tmp_path):
    torch.save(state_of("googlenet", num_classes=10), tmp_path / "m.pt")
    assert any("transform_input" in note for note in load(tmp_path / "m.pt").warnings)
    told = load(tmp_path / "m.pt", architecture_args={"transform_input": True})
    assert not any("transform_input" in note for note in told.warnings)
    assert told.checkpoint.architecture.kwargs == {"num_classes": 10, "transform_input": True}
    assert build_dense(told.checkpoint.architecture).transform_input


def test_published_weights_are_known_by_their_sha256(tmp_path, monkeypatch):
    """The file itself is not here: another file is given its digest."""
    from prunecli.checkpoint import reading

    torch.save(state_of("googlenet"), tmp_path / "m.pt")
    monkeypatch.setattr(reading, "file_sha256", lambda _: "1378be20" + "0" * 56)
    loaded = load(tmp_path / "m.pt")
    assert loaded.warnings == ()
    assert loaded.checkpoint.architecture.kwargs["transform_input"] is True
    assert loaded.checkpoint.metadata["published"] == "GoogLeNet_Weights.IMAGENET1K_V1"


def test_weights_that_fit_several_architectures_are_not_guessed(
    tmp_path, extra_architecture, make_checkpoint
):
    extra_architecture("digits_twin", ARCHITECTURES.get("digits_vgg"))
    tensors = dict(make_checkpoint("digits_vgg").tensors)
    torch.save(tensors, tmp_path / "m.pt")
    with pytest.raises(InputError, match="digits_vgg, digits_twin") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "AMBIGUOUS_ARCHITECTURE"
    named = load(tmp_path / "m.pt", architecture="digits_twin").checkpoint
    assert named.architecture.name == "digits_twin"
    torch.save({"arch": "digits_twin", "state_dict": tensors}, tmp_path / "said.pt")
    assert load(tmp_path / "said.pt").checkpoint.architecture.name == "digits_twin"


def test_a_registered_architecture_is_recognised_without_the_index(tmp_path, extra_architecture):
    small = Architecture(
        "prunecli.architectures.cifar_resnet:cifar_resnet",
        InputSpec(3, 32, 32, (0.5,) * 3, (0.5,) * 3),
        arguments={"depth": 8},
    )
    extra_architecture("cifar_resnet8", small)
    torch.save(state_of("cifar_resnet8", num_classes=4), tmp_path / "m.pt")
    found = load(tmp_path / "m.pt").checkpoint
    assert found.architecture == ArchitectureRef("cifar_resnet8", {"num_classes": 4})


def test_a_near_miss_says_what_differs(tmp_path):
    state = state_of("cifar_resnet20")
    state["conv1.weight"] = torch.zeros(16, 1, 3, 3)
    state["extra.weight"] = torch.zeros(3)
    del state["layer3.2.bn2.bias"]
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "m.pt")
    message = caught.value.message
    assert caught.value.code == "UNKNOWN_ARCHITECTURE"
    assert "cifar_resnet20: 1 missing (layer3.2.bn2.bias); 1 unexpected (extra.weight)" in message
    assert "conv1.weight is [16, 1, 3, 3] and not [16, 3, 3, 3]" in message
    assert "--arch mypackage.nets:make_net" in caught.value.hint


def test_a_state_dict_of_nothing_known_is_an_error_without_guesses(tmp_path):
    torch.save({"encoder.weird": torch.zeros(3), "decoder.weird": torch.ones(2)}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="no known architecture is similar") as caught:
        load(tmp_path / "m.pt")
    assert caught.value.code == "UNKNOWN_ARCHITECTURE"


def test_class_counts_that_contradict_each_other_are_no_match(tmp_path):
    state = state_of("cifar_resnet20", num_classes=10)
    state["linear.bias"] = torch.zeros(9)
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(InputError, match="cifar_resnet20: 1 of another shape"):
        load(tmp_path / "m.pt")


def test_a_named_architecture_that_does_not_fit_says_what_differs(tmp_path):
    torch.save(state_of("cifar_resnet20"), tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"do not fit cifar_resnet32: .* missing") as caught:
        load(tmp_path / "m.pt", architecture="cifar_resnet32")
    assert caught.value.code == "ARCHITECTURE_MISMATCH"


def test_an_unknown_name_gets_the_nearest_one(tmp_path):
    torch.save(state_of("cifar_resnet20"), tmp_path / "m.pt")
    with pytest.raises(InputError, match="did you mean 'resnet50'") as caught:
        load(tmp_path / "m.pt", architecture="resnet5O")
    assert caught.value.code == "UNKNOWN_ARCHITECTURE"


def test_arguments_reach_a_named_architecture(tmp_path):
    kwargs = {"num_classes": 10, "width_per_group": 32}
    torch.save(state_of("resnet18", num_classes=10), tmp_path / "m.pt")
    found = load(
        tmp_path / "m.pt", architecture="resnet18", architecture_args={"zero_init_residual": True}
    )
    assert found.checkpoint.architecture.kwargs == {"num_classes": 10, "zero_init_residual": True}
    with pytest.raises(InputError) as caught:
        load(tmp_path / "m.pt", architecture="resnet18", architecture_args=kwargs)
    assert caught.value.code in {"FACTORY_FAILED", "ARCHITECTURE_MISMATCH"}


FACTORIES = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, width=8, num_classes=3):
            super().__init__()
            self.rates = [x.item() for x in torch.linspace(0, 1, 3)]
            self.conv = nn.Conv2d(2, width, 3)
            self.bn = nn.BatchNorm2d(width)
            self.fc = nn.Linear(width, num_classes)

    def make_net(width=8, num_classes=3):
        return Net(width, num_classes)

    def with_config():
        net = Net()
        net.default_cfg = {"input_size": (2, 24, 20), "mean": (0.1, 0.2), "std": (0.3, 0.4)}
        return net

    def broken():
        raise RuntimeError("no such backbone")

    def wrong():
        return 7

    value = 3
"""


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    """Write a module of factories into the working folder, and a state dict that fits."""
    (tmp_path / "nets_of_the_user.py").write_text(textwrap.dedent(FACTORIES))
    monkeypatch.chdir(tmp_path)
    reference = ArchitectureRef("nets_of_the_user:make_net", {"width": 5})
    state = build_dense(reference, device="cpu").state_dict()
    torch.save(state, tmp_path / "m.pt")
    yield tmp_path / "m.pt"
    sys.modules.pop("nets_of_the_user", None)


def test_a_factory_of_the_user_is_found_in_the_working_folder(user_code):
    before = list(sys.path)
    loaded = load(
        user_code,
        architecture="nets_of_the_user:make_net",
        architecture_args={"width": 5},
        input_size=(12, 16),
    )
    assert sys.path == before
    assert loaded.checkpoint.input.shape == (2, 12, 16)
    assert "normalisation is not known" in loaded.warnings[0]
    module = build_dense(loaded.checkpoint.architecture, device="cpu")
    module.load_state_dict(dict(loaded.checkpoint.tensors))
    assert module.rates == [0.0, 0.5, 1.0]


def test_the_input_of_a_factory_must_be_said_unless_it_declares_one(user_code):
    with pytest.raises(InputError, match="size of the images") as caught:
        load(user_code, architecture="nets_of_the_user:Net", architecture_args={"width": 5})
    assert caught.value.code == "UNKNOWN_INPUT_SIZE"
    torch.save(state_of("nets_of_the_user:with_config"), user_code)
    spec = load(user_code, architecture="nets_of_the_user:with_config").checkpoint.input
    assert spec == InputSpec(2, 24, 20, (0.1, 0.2), (0.3, 0.4))


@pytest.mark.parametrize(
    ("factory", "code", "message"),
    [
        ("make_net", "ARCHITECTURE_MISMATCH", r"conv\.weight is \[5, 2, 3, 3\] and not \[8"),
        ("broken", "FACTORY_FAILED", "RuntimeError: no such backbone"),
        ("wrong", "FACTORY_FAILED", "returned a int"),
        ("value", "FACTORY_NOT_FOUND", "cannot be called"),
        ("nothing", "FACTORY_NOT_FOUND", "has no attribute 'nothing'"),
    ],
)
def test_a_factory_that_does_not_work_says_why(factory, code, message, user_code):
    with pytest.raises(InputError, match=message) as caught:
        load(user_code, architecture=f"nets_of_the_user:{factory}", input_size=(8, 8))
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["no_such_module:net", ":net", "json:"])
def test_a_factory_that_is_not_there_is_an_input_error(name, user_code):
    with pytest.raises(InputError) as caught:
        load(user_code, architecture=name)
    assert caught.value.code == "FACTORY_NOT_FOUND"


def test_a_graph_has_no_dense_architecture():
    with pytest.raises(InputError) as caught:
        build_dense(ArchitectureRef("graph"))
    assert caught.value.code == "GRAPH_ARCHITECTURE"


def test_the_sketch_estimates_how_much_two_networks_share():
    """Against the exact Jaccard index over the same words."""

    def words(name):
        lines = signature(shapes_of(build_dense(ArchitectureRef(name)).state_dict()), {})
        return lines, {w for line in lines for w in (line, line.rpartition(":")[0])}

    for first, second in (("resnet50", "resnet101"), ("resnet50", "vgg11"), ("vgg11", "vgg13")):
        (a, words_a), (b, words_b) = words(first), words(second)
        exact = len(words_a & words_b) / len(words_a | words_b)
        assert similarity(sketch(a), sketch(b)) == pytest.approx(exact, abs=0.2)


def state_of(name: str, **kwargs):
    return build_dense(ArchitectureRef(name, kwargs), device="cpu").state_dict()


def load_of(name: str, folder, **kwargs):
    torch.save(state_of(name, **kwargs), folder / "m.pt")
    return load(folder / "m.pt").checkpoint
