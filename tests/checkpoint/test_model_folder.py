"""Folders of the Hugging Face hub: read with transformers or without, and never led astray."""

from __future__ import annotations

import json
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer, resnet
from torchvision.models.convnext import CNBlockConfig

import prunecli
from prunecli.architectures.registry import build_dense
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import ArchitectureRef, load, model_folder, save
from prunecli.checkpoint.transformers_names import torchvision_name, torchvision_tensors
from prunecli.errors import InputError, LoadRefusedError, PruneError
from prunecli.files import limited
from tests.support.command_line import run
from tests.support.weights import randomize_

NAMES = ("cat", "dog", "cow")
LABELS = {
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: at for at, name in enumerate(NAMES)},
}
PROCESSOR = {"size": {"height": 32, "width": 32}, "image_mean": [0.4, 0.5, 0.6],
             "image_std": [0.2, 0.3, 0.25]}  # fmt: skip
SMALL = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2],
               "layer_type": "basic"},
    "ViT": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64, "image_size": 32, "patch_size": 8},
    "ConvNext": {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "image_size": 32},
    "Swin": {"embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4,
             "image_size": 32, "patch_size": 2},
    "MobileNetV2": {"depth_multiplier": 0.35, "image_size": 32, "finegrained_output": False},
    "Segformer": {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1],
                  "hidden_sizes": [8, 16], "patch_sizes": [7, 3], "strides": [4, 2],
                  "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]},
}  # fmt: skip
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="makes folders with the package itself")


def made(transformers, family, **changes):
    """Return a small model of a family with random weights."""
    kind = getattr(transformers, f"{family}ForImageClassification")
    config = kind.config_class(**{**SMALL[family], **LABELS, **changes})
    return randomize_(kind(config), seed=0).eval()


def written(model, folder, **options):
    """Save a model with its description, and return the folder."""
    model.save_pretrained(folder, **options)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def changed(folder, **settings):
    """Change the configuration in a folder; None takes a setting away."""
    path = folder / "config.json"
    found = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))
    return folder


def close(found, expected, most=1e-5):
    """Demand values that are equal up to how sums are rounded."""
    assert float((found - expected).abs().max() / expected.abs().max()) < most


@torch.no_grad()
@pytest.mark.parametrize("family", SMALL)
def test_a_folder_is_read_rebuilt_and_written_as_any_other_model(family, transformers, tmp_path):
    model = made(transformers, family)
    checkpoint = load(written(model, tmp_path / "model")).checkpoint
    assert checkpoint.architecture.name == f"transformers/{family}ForImageClassification"
    assert checkpoint.classes == NAMES
    assert checkpoint.input.shape == (3, 32, 32)
    assert (checkpoint.input.mean, checkpoint.input.std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    expected = model(IMAGES).logits
    close(instantiate(checkpoint)(IMAGES).logits, expected, most=1e-6)
    save(checkpoint, tmp_path / "again.pt")
    again = load(tmp_path / "again.pt").checkpoint
    assert (again.architecture, again.classes) == (checkpoint.architecture, NAMES)
    close(instantiate(again)(IMAGES).logits, expected, most=1e-6)
    assert "{" not in str(again.architecture)


@torch.no_grad()
@pytest.mark.parametrize("how", ["shards", "bin", "bin shards", "half"])
def test_weights_in_every_form_are_the_same(how, transformers, tmp_path):
    model, folder = made(transformers, "ViT"), tmp_path / "model"
    written(model, folder, **({"max_shard_size": "20KB"} if how == "shards" else {}))
    if how == "shards":
        assert len(list(folder.glob("*.safetensors"))) > 3
    if "bin" in how:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(tensors)
        parts = [names[::2], names[1::2]] if "shards" in how else [names]
        files = ["one.bin", "two.bin"] if "shards" in how else ["pytorch_model.bin"]
        for file, part in zip(files, parts, strict=True):
            torch.save({name: tensors[name] for name in part}, folder / file)
        if "shards" in how:
            places = {n: f for f, part in zip(files, parts, strict=True) for n in part}
            index = folder / "pytorch_model.bin.index.json"
            index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    if how == "half":
        tensors = load_file(folder / "model.safetensors")
        halves = {name: tensor.half() for name, tensor in tensors.items()}
        save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
        model = model.half().float()
    loaded = load(folder)
    assert torch.equal(instantiate(loaded.checkpoint)(IMAGES).logits, model(IMAGES).logits)
    assert ("float16 weights were converted to float32" in loaded.warnings) == (how == "half")


def test_a_folder_is_pruned_like_a_file(transformers, tmp_path, capsys, monkeypatch):
    written(made(transformers, "ResNet"), tmp_path / "small-resnet")
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "prune", "small-resnet", "--flops", "0.5", "--align", "1")
    assert code == 0, err
    pruned = load(tmp_path / "small-resnet.pruned.pt").checkpoint
    assert pruned.classes == NAMES
    assert prunecli.load("small-resnet.pruned.pt")(IMAGES).logits.shape == (2, 3)
    code, out, _ = run(capsys, "analyze", "small-resnet")
    assert code == 0
    assert "transformers/ResNetForImageClassification" in out


def test_no_network_is_asked(transformers, tmp_path, monkeypatch):
    def refused(*_):
        raise AssertionError("it asks the network")

    folder = written(made(transformers, "Swin"), tmp_path / "model")
    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    instantiate(load(folder).checkpoint)


PROCESSORS = [
    ({"size": 48, "do_normalize": False}, (48, 48), (0.0,) * 3, (1.0,) * 3),
    ({"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24},
      "do_center_crop": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
     (32, 24), (0.5,) * 3, (0.5,) * 3),
    ({"size": {"shortest_edge": 40}, "crop_size": 32, "do_center_crop": False},
     (40, 40), (0.0,) * 3, (1.0,) * 3),
    # Pixels that stay between 0 and 255, less 127.5, by 127.5: from -1 to 1
    ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
     (224, 224), (0.5,) * 3, (0.5,) * 3),
]  # fmt: skip


@pytest.mark.parametrize("case", PROCESSORS)
def test_the_input_is_that_of_the_image_processor(case, tmp_path):
    """Named by the user, a folder's model may be of any kind."""
    resnet18 = build_dense(ArchitectureRef("resnet18", {"num_classes": 2}), device="cpu")
    save_file(resnet18.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    given, sides, mean, std = case
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    found = load(tmp_path, architecture="resnet18").checkpoint.input
    assert (found.height, found.width) == sides
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)


def on_disk(model, folder):
    """Return the tensors of a model under the names that its file has for them."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def same_in_torchvision(family):
    """Return a small model of torchvision that is the same network as that of a family."""
    if family == "ResNet":
        return resnet.ResNet(resnet.BasicBlock, [1, 2, 1, 1], num_classes=3)
    if family == "ViT":
        return VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)
    if family == "ConvNext":
        return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=3)
    return SwinTransformer([2, 2], 8, [1, 2], [2, 2], [4, 4], num_classes=3)


@torch.no_grad()
@pytest.mark.parametrize("family", ["ResNet", "ViT", "ConvNext", "Swin"])
def test_renamed_weights_compute_what_transformers_computes(family, transformers, tmp_path):
    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [1, 2, 1, 1]}
    changes = {"ResNet": sizes, "ConvNext": {"patch_size": 4}, "Swin": {}}.get(family, {})
    if family in {"ViT", "ConvNext"}:
        changes = {**changes, "layer_norm_eps": 1e-6}
    model = made(transformers, family, **changes)
    theirs = same_in_torchvision(family).eval()
    kind = type(model).__name__
    theirs.load_state_dict(torchvision_tensors(kind, on_disk(model, tmp_path / "m")))
    expected = model(IMAGES).logits
    close(theirs(IMAGES), expected)


@torch.no_grad()
def test_without_transformers_a_resnet_is_read_as_that_of_torchvision(
    transformers, tmp_path, monkeypatch
):
    sizes = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    model = made(transformers, "ResNet", **sizes)
    folder = written(model, tmp_path / "model")
    monkeypatch.setattr(model_folder, "is_installed", lambda: False)
    loaded = load(folder)
    assert loaded.checkpoint.architecture == ArchitectureRef("resnet18", {"num_classes": 3})
    assert loaded.checkpoint.classes == NAMES
    assert "read as resnet18 of torchvision" in loaded.warnings[0]
    expected = model(IMAGES).logits
    close(instantiate(loaded.checkpoint)(IMAGES), expected)


FULL = {
    "ResNet": {"resnet50": {}, "resnet34": {
        "layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}},
    "ConvNext": {"convnext_tiny": {}, "convnext_base": {
        "hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]}},
    "ViT": {"vit_b_16": {}, "vit_b_32": {"patch_size": 32}},
    "Swin": {"swin_t": {}, "swin_s": {"depths": [2, 2, 18, 2]}},
}  # fmt: skip


@pytest.mark.parametrize("family", FULL)
def test_the_named_models_of_torchvision_have_as_many_weights(family, transformers):
    kind = getattr(transformers, f"{family}ForImageClassification")
    for name, settings in FULL[family].items():
        config = kind.config_class(num_labels=7, **settings)
        assert torchvision_name(kind.__name__, config.to_dict()) == name
        with torch.device("meta"):
            expected = sum(each.numel() for each in kind(config).parameters())
        theirs = build_dense(ArchitectureRef(name, {"num_classes": 7}))
        assert sum(each.numel() for each in theirs.parameters()) == expected


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("ResNet", {"downsample_in_bottleneck": True}),
        ("ResNet", {"hidden_act": "gelu"}),
        ("ResNet", {"depths": [3, 4, 6, 4]}),
        ("ResNet", {"num_channels": 1}),
        ("ViT", {"qkv_bias": False}),
        ("ViT", {"hidden_size": 192}),
        ("ConvNext", {"hidden_act": "relu"}),
        ("Swin", {"window_size": 12}),
        ("Swin", {"use_absolute_embeddings": True}),
        ("Beit", {}),
    ],
)
def test_what_torchvision_computes_otherwise_is_not_mapped(family, settings):
    assert torchvision_name(f"{family}ForImageClassification", settings) is None


def test_without_transformers_other_models_say_what_to_install(transformers, tmp_path, monkeypatch):
    folder = written(made(transformers, "ViT"), tmp_path / "model")
    from prunecli.architectures import transformers_models

    def missing():
        raise ImportError("no module named transformers")

    monkeypatch.setattr(transformers_models, "_package", missing)
    with pytest.raises(InputError, match="needs transformers") as caught:
        load(folder)
    assert (caught.value.code, caught.value.hint) == ("MISSING_EXTRA", "pip install transformers")


BAD = {
    "code of its own": ({"auto_map": {"AutoModel": "code.Net"}}, "REMOTE_CODE"),
    "no class": ({"architectures": None}, "UNKNOWN_LAYERS"),
    "a class that is none": ({"architectures": ["os"]}, "UNKNOWN_ARCHITECTURE"),
    "a class of another kind": ({"architectures": ["BertModel"]}, "UNKNOWN_ARCHITECTURE"),
    "a function": ({"architectures": ["pipeline"]}, "UNKNOWN_ARCHITECTURE"),
    "a loader": ({"architectures": ["AutoModelForImageClassification"]}, "UNKNOWN_ARCHITECTURE"),
    "a model within": ({"architectures": ["DetrForObjectDetection"]}, "UNKNOWN_ARCHITECTURE"),
    "a wide layer": ({"hidden_size": 10**9}, "UNKNOWN_LAYERS"),
    "many layers": ({"num_hidden_layers": 10**6}, "UNKNOWN_LAYERS"),
    "a large model": ({"hidden_size": 16_384, "intermediate_size": 16_384}, "UNKNOWN_LAYERS"),
    "an address": ({"hidden_act": "https://somewhere.org/kernel"}, "UNKNOWN_LAYERS"),
    "a name of the hub": ({"hidden_act": "somebody/kernel"}, "UNKNOWN_LAYERS"),
    "an unknown word": ({"hidden_act": "strange"}, "UNKNOWN_LAYERS"),
    "a nested setting": ({"hidden_act": {"a": 1}}, "UNKNOWN_LAYERS"),
    "other shapes": ({"intermediate_size": 60}, "UNKNOWN_LAYERS"),
    "fewer layers": ({"num_hidden_layers": 1}, "UNKNOWN_LAYERS"),
    "odd classes": ({"id2label": None, "num_labels": "many"}, "UNKNOWN_LAYERS"),
    "odd channels": ({"num_channels": "three"}, "CORRUPT_FILE"),
    "a size that is none": ({"image_size": -1}, "CORRUPT_FILE"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_configuration_that_is_not_plain_is_refused(what, transformers, tmp_path):
    settings, code = BAD[what]
    folder = written(made(transformers, "ViT"), tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    changed(folder, **settings)
    with pytest.raises(PruneError) as caught:
        load(folder)
    assert caught.value.code == code
    assert caught.value.hint


ARGUMENTS = ("a wide layer", "many layers", "an address", "a name of the hub", "a nested setting")


@pytest.mark.parametrize("what", ARGUMENTS)
def test_an_artefact_cannot_say_what_a_folder_cannot(what, transformers):
    config = {**SMALL["ViT"], **BAD[what][0]}
    reference = ArchitectureRef("transformers/ViTForImageClassification", {"config": config})
    with pytest.raises(InputError) as caught:
        build_dense(reference)
    assert caught.value.code == "ARGUMENT_REFUSED"


@pytest.fixture
def plain_folder(tmp_path):
    """Return a folder with a model that needs no transformers, and one tensor beside it."""
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "part.safetensors")
    save_file({"w": torch.ones(2)}, tmp_path / "outside.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def indexed(folder, places):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    "place",
    ["../outside.safetensors", "/outside.safetensors", "a/../../outside.safetensors",
     "link.safetensors", "..", ".", ""],
)  # fmt: skip
def test_weights_outside_of_the_folder_are_refused(place, plain_folder):
    (plain_folder / "link.safetensors").symlink_to("../outside.safetensors")
    indexed(plain_folder, {"w": place})
    with pytest.raises(LoadRefusedError) as caught:
        load(plain_folder, architecture="resnet18")
    assert caught.value.code in {"OUTSIDE_FOLDER", "CORRUPT_FILE"}
    assert "safetensors" not in place or caught.value.code == "OUTSIDE_FOLDER"


def test_a_link_out_of_the_folder_is_followed_where_the_user_says_so(plain_folder):
    (plain_folder / "link.safetensors").symlink_to("../outside.safetensors")
    indexed(plain_folder, {"w": "link.safetensors"})
    with limited(outside=True), pytest.raises(InputError) as caught:
        load(plain_folder, architecture="resnet18")
    assert caught.value.code == "ARCHITECTURE_MISMATCH"


def test_a_download_of_the_hub_is_a_folder_of_links(plain_folder, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--a--b" / "blobs"
    plain_folder.rename(blobs)
    (snapshot / "config.json").symlink_to("../../blobs/config.json")
    (snapshot / "model.safetensors").symlink_to("../../blobs/part.safetensors")
    with pytest.raises(InputError) as caught:
        load(snapshot, architecture="resnet18")
    assert caught.value.code == "ARCHITECTURE_MISMATCH"


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ({"a": "part.safetensors", "b": "missing.safetensors"}, "CORRUPT_FILE"),
        ({"a": "part.safetensors", "b": "copy.safetensors"}, "CORRUPT_FILE"),
        ({"a": 7}, "CORRUPT_FILE"),
        ({}, "CORRUPT_FILE"),
        ([], "CORRUPT_FILE"),
        ({"a": "config.json"}, "NOT_A_CHECKPOINT"),
    ],
)
def test_damaged_lists_of_files_are_errors(index, code, plain_folder):
    save_file({"w": torch.ones(2)}, plain_folder / "copy.safetensors")
    indexed(plain_folder, index)
    with pytest.raises(LoadRefusedError) as caught:
        load(plain_folder, architecture="resnet18")
    assert caught.value.code == code


@pytest.mark.parametrize("text", ["", "[]", "7", "{", '{"a":' * 50_000, "\xff"])
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_damaged_descriptions_are_errors(text, name, plain_folder):
    (plain_folder / "part.safetensors").rename(plain_folder / "model.safetensors")
    (plain_folder / name).write_text(text, encoding="latin1")
    with pytest.raises(LoadRefusedError) as caught:
        load(plain_folder, architecture="resnet18")
    assert caught.value.code == "CORRUPT_FILE"


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert caught.value.code == "NOT_A_FILE"
