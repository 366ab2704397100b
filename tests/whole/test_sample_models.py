"""The sample models: made again with the same bytes, and as good as their manifest says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import stat

import pytest
import torch

from prunecli.architectures.registry import ARCHITECTURES
from prunecli.artefacts.instantiate import instantiate
from prunecli.checkpoint import load
from prunecli.data import load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions
from prunecli_sample_models import make

SIZE_LIMITS = dict.fromkeys(make.NETWORKS, 500_000) | {"digits_wide_resnet": 2_000_000}
"""Bytes, header included."""
SHORT = dataclasses.replace(make.TRAINING, epochs=1, limit=128)
MANIFEST = json.loads((make.FOLDER / "manifest.json").read_text())
NAMES = [entry["name"] for entry in MANIFEST["models"]]

each_model = pytest.mark.parametrize("entry", MANIFEST["models"], ids=NAMES)


def as_json(options):
    return json.loads(json.dumps(dataclasses.asdict(options)))


@pytest.fixture(scope="module")
def made_twice(tmp_path_factory):
    """Return two folders of shortly trained models; other random numbers were drawn between."""
    folders = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp("made") / name
        make.make(folder, options=SHORT)
        torch.rand(7)
        folders.append(folder)
    return folders


def test_the_same_command_writes_the_same_bytes(made_twice):
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in made_twice)
    assert set(first) == {"manifest.json", *(f"{name}.safetensors" for name in make.NETWORKS)}
    assert first == second


def test_another_seed_trains_another_network(made_twice, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "NETWORKS", {"digits_vgg": make.NETWORKS["digits_vgg"]})
    make.make(tmp_path, options=dataclasses.replace(SHORT, seed=1))
    one, other = (load(folder / "digits_vgg.safetensors") for folder in (made_twice[0], tmp_path))
    name = "features.0.weight"
    assert not torch.equal(one.checkpoint.tensors[name], other.checkpoint.tensors[name])


def test_one_model_can_be_made_anew_beside_the_others(made_twice, tmp_path):
    first, _ = made_twice
    shutil.copytree(first, tmp_path / "copy")
    again = tmp_path / "copy"
    (again / "digits_vgg.safetensors").unlink()
    (again / "digits_resnet.safetensors").write_bytes(b"as it was")
    make.make(again, options=SHORT, only=("digits_vgg",))
    vgg, manifest = "digits_vgg.safetensors", "manifest.json"
    assert (again / vgg).read_bytes() == (first / vgg).read_bytes()
    assert (again / manifest).read_bytes() == (first / manifest).read_bytes()
    assert (again / "digits_resnet.safetensors").read_bytes() == b"as it was"


def test_models_of_another_command_are_made_anew(tmp_path, monkeypatch):
    names = ("digits_vgg", "digits_resnet")
    monkeypatch.setattr(make, "NETWORKS", {name: make.NETWORKS[name] for name in names})
    make.make(tmp_path, options=SHORT)
    before = {name: (tmp_path / f"{name}.safetensors").read_bytes() for name in names}
    make.make(tmp_path, options=dataclasses.replace(SHORT, seed=1), only=("digits_vgg",))
    assert all((tmp_path / f"{name}.safetensors").read_bytes() != before[name] for name in names)


def test_training_leaves_the_random_state_and_the_threads_of_the_caller(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "NETWORKS", {"digits_vgg": make.NETWORKS["digits_vgg"]})
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    make.make(tmp_path, options=SHORT)
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()


def test_the_files_can_be_read_by_everybody_who_can_read_new_files(made_twice):
    modes = {stat.S_IMODE(path.stat().st_mode) for path in made_twice[0].iterdir()}
    (made_twice[0] / "plain").touch()
    assert modes == {stat.S_IMODE((made_twice[0] / "plain").stat().st_mode)}
    (made_twice[0] / "plain").unlink()


def test_the_command_names_only_what_differs_from_the_default():
    assert make.command_for(make.TRAINING) == "python -m prunecli_sample_models.make"
    other = dataclasses.replace(make.TRAINING, epochs=2, seed=3)
    assert make.command_for(other).endswith("make --epochs 2 --seed 3")


def test_the_manifest_lists_the_committed_files_and_how_they_were_made():
    files = {path.name for path in make.FOLDER.glob("*.safetensors")}
    assert files == {entry["file"] for entry in MANIFEST["models"]}
    assert list(make.NETWORKS) == NAMES
    assert MANIFEST["command"] == make.COMMAND
    assert MANIFEST["seed"] == make.TRAINING.seed
    # Options that came later have their defaults in what was trained before.
    later = {**as_json(FinetuneOptions()), **MANIFEST["training"]}
    assert later == as_json(make.TRAINING)
    for entry in MANIFEST["models"]:
        assert {"prunecli", "torch", "scikit-learn"} <= set(entry["versions"])


@each_model
def test_a_committed_file_is_the_one_in_the_manifest(entry):
    content = (make.FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert len(content) == entry["bytes"] < SIZE_LIMITS[entry["name"]]


@each_model
def test_a_committed_file_says_what_it_is_and_where_it_comes_from(entry):
    loaded = load(make.FOLDER / entry["file"])
    checkpoint = loaded.checkpoint
    assert loaded.warnings == ()
    assert checkpoint.architecture.name == entry["name"]
    assert checkpoint.input == ARCHITECTURES.get(entry["name"]).input
    assert checkpoint.classes == tuple("0123456789")
    assert checkpoint.metadata["history"] == [{"command": MANIFEST["command"], "seed": 0}]
    assert checkpoint.metadata["versions"] == entry["versions"]
    assert checkpoint.metadata["accuracy"]["after"] == entry["accuracy"]


@each_model
def test_a_committed_file_is_as_accurate_as_the_manifest_says(entry):
    checkpoint = load(make.FOLDER / entry["file"]).checkpoint
    network = instantiate(checkpoint)
    images = load_split(open_source("digits"), "test", input=checkpoint.input)
    scores = evaluate(network, images, input=checkpoint.input)
    # Another processor adds up in another order, which may turn over one digit on the border.
    assert scores.accuracy == pytest.approx(entry["accuracy"], abs=1.5 / scores.count)
    assert scores.accuracy >= 0.97
    assert sum(p.numel() for p in network.parameters()) == entry["parameters"]
