"""Fixtures for all tests: where the real data is, and small checkpoints to work on."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path

import pytest
import torch

from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import ARCHITECTURES, build_dense
from prunecli.checkpoint import Checkpoint, save
from tests.support.weights import randomize_

torch.set_num_threads(1)  # the tests run in parallel processes

# A shell starts background jobs with Ctrl-C ignored, and every child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("PRUNECLI_CACHE", "~/.cache/prunecli-data")).expanduser()
CIFAR_CLASSES = 10


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Return the folder of real checkpoints and images; skip where it is missing."""
    folder = Path(os.environ.get("PRUNECLI_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "checkpoints").is_dir():
        pytest.skip(f"no real data in {folder}; set PRUNECLI_SHARED to the folder that has it")
    return folder


@pytest.fixture(scope="session")
def cifar_dir(shared_dir: Path) -> Path:
    """Return a folder with `train/<class>/*.jpg` and `test/<class>/*.jpg`, unpacked once."""
    for split in ("train", "test"):
        if len(list((CACHE / split).glob("*"))) == CIFAR_CLASSES:
            continue
        archive = shared_dir / "data" / f"cifar10-jpeg-{split}.tar.gz"
        if not archive.exists():
            pytest.skip(f"no real images: {archive} is missing")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            tar.extractall(CACHE, filter="data")
    return CACHE


@pytest.fixture
def make_checkpoint():
    """Return a function that makes a checkpoint of a registered architecture, random but seeded."""

    def make(name: str = "digits_resnet", *, seed: int = 0, **kwargs: object) -> Checkpoint:
        reference = ArchitectureRef(name, {"num_classes": 10, **kwargs})
        module = randomize_(build_dense(reference, device="cpu"), seed=seed)
        spec = ARCHITECTURES.get(name).input
        return Checkpoint(reference, module.state_dict(), spec, metadata={"seed": seed})

    return make


@pytest.fixture
def digits_checkpoint(tmp_path: Path, make_checkpoint) -> Path:
    """Return the path of an artefact with the small residual network for digits."""
    path = tmp_path / "digits_resnet.pt"
    save(make_checkpoint("digits_resnet"), path)
    return path
