"""The architectures that are known by name, and how a state dict is recognised as one of them.

To add one, register an `Architecture`; nothing else needs to know. Those in `index.json` (every
torchvision classifier) are listed and recognised without importing torchvision.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.architectures.architecture import Architecture, Published
from prunecli.architectures.arguments import TIMM, TORCHVISION, check_arguments
from prunecli.architectures.fingerprint import (
    Fingerprint,
    Shapes,
    digest,
    fingerprint,
    has_free_dims,
    read_arguments,
    shapes_of,
    signature,
    similarity,
    sketch,
)
from prunecli.architectures.reference import GRAPH, ArchitectureRef, InputSpec
from prunecli.architectures.transformers_models import (
    FROM_TRANSFORMERS,
    transformers_architecture,
)
from prunecli.architectures.ultralytics_models import FROM_ULTRALYTICS, ultralytics_architecture
from prunecli.errors import InputError
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

_NEAR = 0.1  # below this two networks share little more than words like `classifier`
FROM_TIMM = "timm/"
"""What names of timm's models begin with here; they are known by name only, not recognised."""

INDEX_PATH = Path(__file__).with_name("index.json")


@dataclass(frozen=True)
class Match:
    """An architecture that a state dict fits exactly, and the arguments read off its shapes.

    `keeps_auxiliary` says that the fit is with the auxiliary heads, not without them.
    """

    name: str
    arguments: Mapping[str, int]
    keeps_auxiliary: bool = False


ARCHITECTURES: Registry[Architecture] = Registry("architecture")

_CIFAR_INPUT = InputSpec(3, 32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Mean and deviation of scikit-learn's digits, as they are and at twice the size.
_DIGITS_INPUT = InputSpec(1, 8, 8, (0.305,), (0.376,))
_LARGE_DIGITS_INPUT = InputSpec(1, 16, 16, (0.305,), (0.319,))

_TRANSFORM_INPUT = {
    "transform_input": "taken as false (trained from scratch); fine-tuned from torchvision's "
    "pretrained weights it must be true: --arch-arg transform_input=true"
}
# What a torchvision constructor needs besides `weights=None`, where it needs anything.
_TORCHVISION_DETAILS: Mapping[str, Mapping[str, Any]] = {
    "googlenet": {
        "arguments": {"aux_logits": False, "init_weights": False},
        "auxiliary": ("aux1.", "aux2."),
        "hidden": _TRANSFORM_INPUT,
    },
    "inception_v3": {
        "arguments": {"aux_logits": False, "init_weights": False},
        "auxiliary": ("AuxLogits.",),
        "hidden": _TRANSFORM_INPUT,
    },
    **{
        name: {"variants": {"num_classes": (1000, 7), "image_size": (224, 448)}}
        for name in ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
    },
}


def build_dense(architecture: ArchitectureRef, *, device: str = "meta") -> nn.Module:
    """Return the dense network in eval mode, with weights that mean nothing (zeros, or no memory).

    `device` is `meta` or `cpu`. The name `package.module:factory` imports and calls that code.
    Raises `InputError` for an unknown name, an argument that is not accepted or goes beyond its
    bounds (`ARGUMENT_REFUSED`), or a factory that fails.
    """
    from prunecli.architectures.skeleton import call_factory  # it needs torch

    if architecture.name == GRAPH:
        raise InputError(
            "a re-emitted graph has no dense architecture to build",
            code="GRAPH_ARCHITECTURE",
            hint="its metadata names the dense model that it was cut from",
        )
    if architecture.is_factory:
        return call_factory(architecture.name, architecture.kwargs, device=device, with_folder=True)
    entry = architecture_of(architecture.name)
    check_arguments(architecture, entry.accepts)
    arguments = {**entry.arguments, **architecture.kwargs}
    return call_factory(entry.factory, arguments, device=device, with_folder=False)


def architecture_of(name: str) -> Architecture:
    """Return a registered architecture, or that of `PACKAGE/NAME` where the package is installed.

    Raises `InputError` for a name that neither knows.
    """
    for prefix, architecture in FAMILIES.items():
        if name.startswith(prefix):
            return architecture(name.removeprefix(prefix))
    return ARCHITECTURES.get(name)


@cache
def _timm_architecture(name: str) -> Architecture:
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"{FROM_TIMM}{name} needs timm, which is not installed",
            code="MISSING_EXTRA",
            hint="pip install 'prunecli[timm]'",
        ) from error
    # Only what timm itself defines: other spellings would fetch code or weights from elsewhere.
    if not timm.is_model(name):
        near = ", ".join(FROM_TIMM + known for known in timm.list_models(f"*{name}*")[:5])
        raise InputError(
            f"timm has no model {name!r}",
            code="UNKNOWN_ARCHITECTURE",
            hint=f"did you mean {near}" if near else "timm.list_models() has all names",
        )
    config = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    channels, height, width = config.input_size if config is not None else (3, 224, 224)
    mean, std = (config.mean, config.std) if config is not None else ((0.5,) * 3, (0.5,) * 3)
    return Architecture(
        factory="timm:create_model",
        input=InputSpec(channels, height, width, tuple(mean), tuple(std)),
        arguments={"model_name": name, "pretrained": False},
        accepts=TIMM,
    )


FAMILIES: Mapping[str, Callable[[str], Architecture]] = {
    FROM_TIMM: _timm_architecture,
    FROM_TRANSFORMERS: transformers_architecture,
    FROM_ULTRALYTICS: ultralytics_architecture,
}
"""The packages whose models are known by name, by what such a name begins with."""


def match_all(shapes: Shapes, *, name: str | None = None) -> list[Match]:
    """Return every registered architecture that the shapes fit exactly, or `name` alone."""
    lines: dict[Any, str] = {}
    found = []
    for known_name in ARCHITECTURES.names() if name is None else (name,):
        auxiliary, known = architecture_of(known_name).auxiliary, fingerprint_of(known_name)
        key = (auxiliary, tuple(known.free.items()))
        kept = without_auxiliary(shapes, auxiliary)
        if not has_free_dims(kept, known.free):
            continue
        if key not in lines:
            lines[key] = digest(signature(kept, known.free))
        if lines[key] != known.digest:
            continue
        arguments = read_arguments(kept, known.free)
        if arguments is not None:
            found.append(Match(known_name, arguments))
    return found


def nearest(shapes: Shapes, *, count: int = 3) -> list[tuple[float, str]]:
    """Return the registered architectures that share most with the shapes, best first.

    The numbers are estimated Jaccard indices of the names and shapes, 0 to 1.
    """
    scored = []
    for entry in ARCHITECTURES:
        known = fingerprint_of(entry.name)
        kept = without_auxiliary(shapes, entry.value.auxiliary)
        free = {a: pairs for a, pairs in known.free.items() if has_free_dims(kept, {a: pairs})}
        scored.append((similarity(sketch(signature(kept, free)), known.sketch), entry.name))
    scored.sort(key=lambda pair: -pair[0])
    return [pair for pair in scored[:count] if pair[0] >= _NEAR]


def expected_shapes(name: str, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return what `name` would hold, with the arguments that `shapes` lets one read."""
    known = fingerprint_of(name)
    arguments: dict[str, int] = {}
    for argument, pairs in known.free.items():
        if has_free_dims(shapes, {argument: pairs}):
            arguments |= read_arguments(shapes, {argument: pairs}) or {}
    return shapes_of(build_dense(ArchitectureRef(name, arguments)).state_dict())


@cache
def fingerprint_of(name: str) -> Fingerprint:
    """Return the fingerprint from the index, or of a freshly built network where it has none."""
    known = _index()["fingerprints"].get(name)
    return compute_fingerprint(name) if known is None else Fingerprint.from_json(known)


def compute_fingerprint(name: str) -> Fingerprint:
    """Return the fingerprint of `name` by building it without memory."""
    variants = architecture_of(name).variants
    reference = {argument: values[0] for argument, values in variants.items()}
    return fingerprint(
        _built_shapes(name, reference),
        {
            argument: _built_shapes(name, {**reference, argument: values[1]})
            for argument, values in variants.items()
        },
    )


def _built_shapes(name: str, arguments: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return shapes_of(build_dense(ArchitectureRef(name, arguments)).state_dict())


def without_auxiliary(shapes: Shapes, prefixes: tuple[str, ...]) -> Shapes:
    """Return the shapes without the tensors whose names start with one of `prefixes`."""
    if not prefixes:
        return shapes
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefixes)}


@cache
def _index() -> dict[str, Any]:
    if not INDEX_PATH.exists():  # while it is being made
        return {"fingerprints": {}, "torchvision": {}}
    index: dict[str, Any] = json.loads(INDEX_PATH.read_text())
    return index


def torchvision_architecture(name: str, details: Mapping[str, Any]) -> Architecture:
    """Return the architecture of a torchvision classifier from its `index.json` details."""
    special = _TORCHVISION_DETAILS.get(name, {})
    hidden = special.get("hidden", {})
    return Architecture(
        factory=f"torchvision.models:{name}",
        input=InputSpec.from_json(details["input"]),
        arguments={"weights": None, **special.get("arguments", {})},
        variants=special.get("variants", {"num_classes": (1000, 7)}),
        auxiliary=special.get("auxiliary", ()),
        hidden=hidden,
        accepts=TORCHVISION,
        published={
            sha256: Published(
                name=weights["name"],
                input=InputSpec.from_json(weights["input"]),
                # torchvision sets these for all the pretrained weights that it publishes
                arguments=dict.fromkeys(hidden, True),
            )
            for sha256, weights in details["published"].items()
        },
    )


def _own_architectures() -> Iterator[tuple[str, Architecture, str]]:
    for depth in (20, 32, 44, 56, 110, 1202):
        yield (
            f"cifar_resnet{depth}",
            Architecture(
                "prunecli.architectures.cifar_resnet:cifar_resnet",
                _CIFAR_INPUT,
                arguments={"depth": depth},
            ),
            "Residual network for 32x32 images with zero-padded shortcuts (option A).",
        )
    for name, input_spec, summary in (
        (
            "digits_resnet",
            _DIGITS_INPUT,
            "Residual network with zero-padded shortcuts for 8x8 digits.",
        ),
        (
            "digits_vgg",
            _DIGITS_INPUT,
            "Plain convolutions with batch norm and two linear layers for 8x8 digits.",
        ),
        (
            "digits_mobilenet",
            _DIGITS_INPUT,
            "Depthwise convolutions and squeeze-excite for 8x8 digits.",
        ),
        ("digits_wide_resnet", _LARGE_DIGITS_INPUT, "Wide residual network for 16x16 digits."),
    ):
        factory = f"prunecli_sample_models.networks:{name}"
        yield name, Architecture(factory, input_spec), summary


def _register() -> None:
    for name, architecture, summary in _own_architectures():
        ARCHITECTURES.add(name, architecture, summary=summary, source="He et al. 2015, section 4.2")
    for name, details in _index()["torchvision"].items():
        ARCHITECTURES.add(
            name,
            torchvision_architecture(name, details),
            summary="Image classifier of torchvision.",
            source=f"torchvision.models.{name}",
        )


_register()
