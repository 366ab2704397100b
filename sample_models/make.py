"""Make the sample models again: `python -m prunecli_sample_models.make`.

Each network starts from random weights and is trained by prunecli itself on scikit-learn's digits.
The same command writes the same bytes on the same machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunecli import training
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import ARCHITECTURES
from prunecli.artefacts.provenance import state_of, versions
from prunecli.atomic import atomic_write
from prunecli.checkpoint import Checkpoint, save
from prunecli.data import DataSource, load_split, open_source
from prunecli.evaluation.images import evaluate
from prunecli.options import FinetuneOptions
from prunecli_sample_models import networks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from prunecli.report import Evaluation

FOLDER = Path(__file__).parent
COMMAND = "python -m prunecli_sample_models.make"
DATA = "digits"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits_resnet": networks.digits_resnet,
    "digits_vgg": networks.digits_vgg,
    "digits_mobilenet": networks.digits_mobilenet,
    "digits_wide_resnet": networks.digits_wide_resnet,
}
TRAINING = FinetuneOptions(
    epochs=50, lr=0.05, batch_size=64, augment="crop", held_out=0.2, seed=0, amp="no"
)
"""Far enough that the held-out accuracy stands still; shifts by a pixel make up for few digits.

A fifth is held out because, of a tenth, many epochs get every digit right: no ground to choose on.
"""


def make(folder: Path, *, options: FinetuneOptions = TRAINING, only: Sequence[str] = ()) -> Path:
    """Train the networks, write them into `folder`, and return the path of their manifest.

    With `only`, the others stay as they are where the same command made them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    command = command_for(options)
    kept = {} if not only else _made_by(command, path)
    source = open_source(DATA)
    with _one_thread():
        entries = [
            kept[name]
            if name in kept and name not in only
            else _make_one(name, folder, source, options)
            for name in NETWORKS
        ]
    manifest = {
        "schema_version": 2,
        "command": command,
        "seed": options.seed,
        "data": DATA,
        "training": dataclasses.asdict(options),
        "models": entries,
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")
    return path


def _made_by(command: str, manifest: Path) -> dict[str, dict[str, Any]]:
    """Return the models of a manifest by name, if this command made them."""
    if not manifest.exists():
        return {}
    made = json.loads(manifest.read_text())
    return {entry["name"]: entry for entry in made["models"]} if made["command"] == command else {}


def command_for(options: FinetuneOptions) -> str:
    """Return the command that trains with these options; where it writes changes no byte."""
    flags = [
        f"--{name} {getattr(options, name)}"
        for name in ("epochs", "seed")
        if getattr(options, name) != getattr(TRAINING, name)
    ]
    return " ".join([COMMAND, *flags])


def _make_one(
    name: str, folder: Path, source: DataSource, options: FinetuneOptions
) -> dict[str, Any]:
    spec = ARCHITECTURES.get(name).input
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = NETWORKS[name]()
    result = training.finetune(network, source, input=spec, options=options)
    test = load_split(source, "test", input=spec)
    scores = evaluate(result.model, test, input=spec)
    checkpoint = Checkpoint(
        architecture=ArchitectureRef(name, {"num_classes": len(source.classes)}),
        tensors=state_of(result.model),
        input=spec,
        classes=source.classes,
        metadata=_provenance(options, scores),
    )
    path = folder / f"{name}.safetensors"
    save(checkpoint, path)
    return {
        "name": name,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "parameters": sum(parameter.numel() for parameter in result.model.parameters()),
        "accuracy": scores.accuracy,
        "accuracy_on": f"{scores.count} digits that were neither trained on nor chosen by",
        "versions": _versions(),
    }


def _provenance(options: FinetuneOptions, scores: Evaluation) -> dict[str, Any]:
    """Return where a network comes from, in the words that later steps add theirs to."""
    return {
        "data": DATA,
        "accuracy": {"after": scores.accuracy, "split": scores.split, "count": scores.count},
        "history": [{"command": command_for(options), "seed": options.seed}],
        "training": dataclasses.asdict(options),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {**versions(), "scikit-learn": version("scikit-learn")}  # whose digits they are


@contextmanager
def _one_thread() -> Iterator[None]:
    """Take one thread: sums over several depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, make the models, and say how good they are."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make the sample models again.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default: the package)")
    parser.add_argument("--epochs", type=int, default=TRAINING.epochs, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=TRAINING.seed, help="default: %(default)s")
    parser.add_argument(
        "--only", action="append", choices=list(NETWORKS), default=[], help="repeatable"
    )
    chosen = parser.parse_args(arguments)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a GPU may add up in another order every time
    options = dataclasses.replace(TRAINING, epochs=chosen.epochs, seed=chosen.seed)
    manifest = make(chosen.out, options=options, only=chosen.only)
    for model in json.loads(manifest.read_text())["models"]:
        print(f"{model['file']}: {model['bytes']} bytes, accuracy {model['accuracy']:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
