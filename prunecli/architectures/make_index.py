"""Make `index.json`: fingerprints, input sizes and published weights of all known architectures.

Run `python -m prunecli.architectures.make_index` after torchvision or a network of ours has
changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torchvision

from prunecli.architectures.reference import InputSpec
from prunecli.architectures.registry import (
    ARCHITECTURES,
    INDEX_PATH,
    compute_fingerprint,
    torchvision_architecture,
)
from prunecli.atomic import atomic_write

if TYPE_CHECKING:
    from pathlib import Path


def make_index(path: Path = INDEX_PATH) -> None:
    """Write the index of every torchvision classifier and every registered architecture."""
    names = torchvision.models.list_models(module=torchvision.models)
    described = {name: _describe(name) for name in sorted(names)}
    for name, details in described.items():
        if name not in ARCHITECTURES:
            architecture = torchvision_architecture(name, details)
            ARCHITECTURES.add(name, architecture, summary="Image classifier of torchvision.")
    index = {
        "torchvision_version": torchvision.__version__.partition("+")[0],
        "torchvision": described,
        "fingerprints": {name: compute_fingerprint(name).to_json() for name in _known_names()},
    }
    with atomic_write(path) as temporary:
        temporary.write_text(_dumps(index))


def _dumps(index: dict[str, Any]) -> str:
    """Return JSON with one architecture a line, so that a change shows as one line."""
    parts = []
    for key, value in index.items():
        rows = value.items() if isinstance(value, dict) else ()
        lines = [f"{json.dumps(name)}: {json.dumps(row, sort_keys=True)}" for name, row in rows]
        body = "{\n" + ",\n".join(lines) + "\n}" if lines else json.dumps(value)
        parts.append(f"{json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _known_names() -> list[str]:
    """Return the names whose code ships with us or with torchvision; plugins are not indexed."""
    places = ("torchvision.", "prunecli.", "prunecli_sample_models.")
    return sorted(e.name for e in ARCHITECTURES if e.value.factory.startswith(places))


def _describe(name: str) -> dict[str, Any]:
    """Return the default input of a classifier, and its published weights by their sha256."""
    weights = torchvision.models.get_model_weights(name)
    default = weights.DEFAULT
    if name == "vit_h_14":  # its weights are for other image sizes than its constructor's default
        return {"input": {**_input(default), "height": 224, "width": 224}, **_published(weights)}
    return {"input": _input(default), **_published(weights)}


def _published(weights: Any) -> dict[str, Any]:
    published = {
        one.url.rpartition("-")[2].partition(".")[0]: {"name": str(one), "input": _input(one)}
        for one in weights
    }
    return {"published": published}


def _input(weights: Any) -> dict[str, Any]:
    transforms = weights.transforms()
    (size,) = transforms.crop_size
    mean, std = tuple(transforms.mean), tuple(transforms.std)
    return InputSpec(len(mean), size, size, mean, std).to_json()


if __name__ == "__main__":
    make_index()
