"""Make `index.json` and `timm_index.json`: fingerprints of all known architectures, and more.

Run `python -m prunecli.architectures.make_index` after torchvision or a network of ours has
changed, and with `timm` after timm has, which takes some minutes.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torchvision

from prunecli.architectures.fingerprint import (
    Shapes,
    fingerprint_with,
    shapes_of,
)
from prunecli.architectures.index import (
    INDEX_PATH,
    TIMM_INDEX_PATH,
    TimmModels,
    timm_models_to_json,
)
from prunecli.architectures.lookup import compute_fingerprint
from prunecli.architectures.reference import InputSpec
from prunecli.architectures.registry import ARCHITECTURES, torchvision_architecture
from prunecli.architectures.skeleton import call_factory
from prunecli.architectures.structure import structure_digest
from prunecli.atomic import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_CLASSES = 1009
"""A number that is the size of nothing else in any model of timm."""


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


def make_timm_index(path: Path = TIMM_INDEX_PATH) -> None:
    """Write the index of every model of timm."""
    import timm

    built = ((name, *_built(name)) for name in sorted(timm.list_models()))
    write_timm_index(built, path, version=timm.__version__)


def write_timm_index(built: Iterable[tuple[str, Shapes, str]], path: Path, *, version: str) -> None:
    """Write an index of models by name, with their shapes and what else they compute by."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    fingerprints = {}
    for name, shapes, structure in built:
        free = tuple(
            (tensor, dim)
            for tensor, shape in shapes.items()
            for dim, size in enumerate(shape)
            if size == _CLASSES
        )
        known = fingerprint_with(shapes, {"num_classes": free} if free else {})
        fingerprints[known.digest] = known
        groups[known.digest][structure].append(name)
    models = []
    for key, same in groups.items():
        names = [tuple(sorted(group, key=_plainness)) for group in same.values()]
        plainest = tuple(sorted(names, key=lambda group: _plainness(group[0])))
        models.append(TimmModels(fingerprints[key], plainest))
    with atomic_write(path) as temporary:
        temporary.write_text(_dumps({"timm_version": version, **timm_models_to_json(models)}))


def _plainness(name: str) -> tuple[int, str]:
    return len(name), name


def _built(name: str) -> tuple[Shapes, str]:
    arguments = {"model_name": name, "pretrained": False, "num_classes": _CLASSES}
    module = call_factory("timm:create_model", arguments, device="meta", with_folder=False)
    return shapes_of(module.state_dict()), structure_digest(module)


def _dumps(index: dict[str, Any]) -> str:
    """Return JSON with one architecture a line, so that a change shows as one line."""
    parts = []
    for key, value in index.items():
        if isinstance(value, dict):
            rows = [f"{json.dumps(name)}: {_dump(row)}" for name, row in value.items()]
            body = "{\n" + ",\n".join(rows) + "\n}"
        elif isinstance(value, list):
            body = "[\n" + ",\n".join(map(_dump, value)) + "\n]"
        else:
            body = json.dumps(value)
        parts.append(f"{json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _dump(row: Any) -> str:
    return json.dumps(row, sort_keys=True, separators=(",", ":"))


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
    make_timm_index() if "timm" in sys.argv[1:] else make_index()
