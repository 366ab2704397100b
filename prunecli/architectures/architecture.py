"""What is known of a named architecture: how it is made, recognised, and fed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.architectures.arguments import CLASSES_ALONE, Argument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prunecli.architectures.reference import InputSpec


@dataclass(frozen=True)
class Published:
    """Weights that were published for an architecture, known by their file's sha256."""

    name: str
    input: InputSpec
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """How a named network is made, and how its state dict is recognised.

    `factory` is `package.module:function`, called with `arguments` and with what the state dict
    shows; `variants` gives a reference and another value for every argument that can be read off
    shapes. Tensors whose names start with a prefix in `auxiliary` serve training only and are
    dropped. `hidden` names arguments that change the result but leave no trace in the weights, with
    a sentence on what was assumed. `published` is keyed by the first digits of the file's sha256.
    `accepts` are the arguments that a file or a user may give, with their bounds.
    """

    factory: str
    input: InputSpec
    arguments: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"num_classes": (10, 7)}
    )
    auxiliary: tuple[str, ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, Published] = field(default_factory=dict)
    accepts: Mapping[str, Argument] = field(default_factory=lambda: CLASSES_ALONE)
