"""The architectures that are known by name, and how their networks are built.

To add one, register an `Architecture`; nothing else needs to know. Those in `index.json` (every
torchvision classifier) are listed and recognised without importing torchvision. The models of timm
are not registered: each is there as `timm/NAME`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.architectures.architecture import Architecture, Published
from prunecli.architectures.arguments import TORCHVISION, check_arguments
from prunecli.architectures.changes import check_changes
from prunecli.architectures.index import torchvision_index
from prunecli.architectures.reference import GRAPH, ArchitectureRef, InputSpec
from prunecli.architectures.timm_models import FROM_TIMM, timm_architecture
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
    Raises `InputError` for an unknown name, an argument or a change that is not accepted or goes
    beyond its bounds (`ARGUMENT_REFUSED`, `CHANGE_REFUSED`), or a factory that fails.
    """
    from prunecli.architectures.skeleton import call_factory  # it needs torch

    if architecture.name == GRAPH:
        raise InputError(
            "a re-emitted graph has no dense architecture to build",
            code="GRAPH_ARCHITECTURE",
            hint="its metadata names the dense model that it was cut from",
        )
    check_changes(architecture)
    if architecture.is_factory:
        return call_factory(architecture.name, architecture.kwargs, device=device, with_folder=True)
    entry = architecture_of(architecture.name)
    check_arguments(architecture, entry.accepts)
    arguments = {**entry.arguments, **architecture.kwargs}
    module = call_factory(entry.factory, arguments, device=device, with_folder=False)
    if not architecture.changes:
        return module
    from prunecli.architectures.changing import apply_

    return apply_(module, architecture, device=device)


def architecture_of(name: str) -> Architecture:
    """Return a registered architecture, or that of `PACKAGE/NAME` where the package is installed.

    Raises `InputError` for a name that neither knows.
    """
    for prefix, architecture in FAMILIES.items():
        if name.startswith(prefix):
            return architecture(name.removeprefix(prefix))
    return ARCHITECTURES.get(name)


FAMILIES: Mapping[str, Callable[[str], Architecture]] = {
    FROM_TIMM: timm_architecture,
    FROM_TRANSFORMERS: transformers_architecture,
    FROM_ULTRALYTICS: ultralytics_architecture,
}
"""The packages whose models are known by name, by what such a name begins with."""


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
    for name, details in torchvision_index().items():
        ARCHITECTURES.add(
            name,
            torchvision_architecture(name, details),
            summary="Image classifier of torchvision.",
            source=f"torchvision.models.{name}",
        )


_register()
