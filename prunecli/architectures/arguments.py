"""Which arguments an architecture takes from a file, and how far they may go.

An artefact names its architecture with arguments, and comes from strangers: an argument is passed
on only where the architecture accepts it by name, in bounds that keep the network buildable. So
nothing in a file makes a constructor fetch weights, open a path, or fill the memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError
from prunecli.wording import some

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prunecli.architectures.reference import ArchitectureRef

FETCHING = frozenset(
    {
        "checkpoint_path",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "progress",
        "weights",
        "weights_backbone",
    }
)
"""Arguments by which torchvision and timm load weights: prunecli has those of the file."""


@dataclass(frozen=True)
class Argument:
    """What an argument may be: `fits` tells, `expected` says it in words."""

    fits: Callable[[Any], bool]
    expected: str


def whole(low: int, high: int) -> Argument:
    """Return the argument of a whole number.

    >>> whole(1, 8).fits(8), whole(1, 8).fits(9), whole(1, 8).fits(True)
    (True, False, False)
    """
    return Argument(
        lambda value: type(value) is int and low <= value <= high, f"a whole number {low}..{high}"
    )


def number(low: float, high: float) -> Argument:
    """Return the argument of any number, bounds included."""
    return Argument(
        lambda value: type(value) in {int, float} and low <= value <= high,
        f"a number {low:g}..{high:g}",
    )


def several(one: Argument, most: int) -> Argument:
    """Return the argument of a single value or a list of up to `most`."""

    def fits(value: Any) -> bool:
        if isinstance(value, list | tuple):
            return len(value) <= most and all(map(one.fits, value))
        return one.fits(value)

    return Argument(fits, f"{one.expected}, or up to {most} of them")


def word(*words: str) -> Argument:
    """Return the argument that is one of some words."""
    return Argument(lambda value: value in words, f"one of {', '.join(map(repr, words))}")


FLAG = Argument(lambda value: type(value) is bool, "true or false")
SHARE = number(0, 1)
CLASSES = whole(0, 1_000_000)
PIXELS = several(whole(1, 8192), 2)
WIDTH = whole(1, 16_384)

CLASSES_ALONE: Mapping[str, Argument] = {"num_classes": CLASSES}

TORCHVISION: Mapping[str, Argument] = {
    **CLASSES_ALONE,
    **dict.fromkeys(
        ("aux_logits", "init_weights", "transform_input", "zero_init_residual", "reduced_tail",
         "dilated", "memory_efficient"), FLAG
    ),
    **dict.fromkeys(
        ("attention_dropout", "drop_rate", "dropout", "dropout_aux", "stochastic_depth_prob"),
        SHARE,
    ),
    "alpha": number(0.01, 16),
    "bn_size": whole(1, 64),
    "groups": whole(1, 1024),
    "growth_rate": whole(1, 1024),
    "image_size": whole(1, 8192),
    "norm_eps": number(0, 1),
    "replace_stride_with_dilation": several(FLAG, 3),
    "round_nearest": whole(1, 64),
    "width_mult": number(0.01, 16),
    "width_per_group": whole(1, 4096),
}  # fmt: skip
"""What the classifiers of torchvision take; a constructor refuses what is another's."""

TIMM: Mapping[str, Argument] = {
    **CLASSES_ALONE,
    **dict.fromkeys(
        ("attn_drop_rate", "drop_block_rate", "drop_path_rate", "drop_rate", "patch_drop_rate",
         "pos_drop_rate", "proj_drop_rate"), SHARE
    ),
    **dict.fromkeys(
        ("class_token", "dynamic_img_pad", "dynamic_img_size", "exportable", "no_embed_class",
         "qk_norm", "qkv_bias", "scriptable", "strict_img_size"), FLAG
    ),
    "depth": whole(1, 512),
    "embed_dim": WIDTH,
    "global_pool": word("", "avg", "max", "avgmax", "catavgmax", "fast", "token", "map"),
    "img_size": PIXELS,
    "in_chans": whole(1, 1024),
    "mlp_ratio": number(0.01, 64),
    "num_heads": whole(1, 512),
    "output_stride": whole(1, 64),
    "patch_size": several(whole(1, 1024), 2),
    "window_size": several(whole(1, 1024), 2),
}  # fmt: skip
"""What the models of timm take by name."""


def check_arguments(architecture: ArchitectureRef, accepted: Mapping[str, Argument]) -> None:
    """Raise `InputError` (`ARGUMENT_REFUSED`) for an argument that is not accepted as it is."""
    for name, value in architecture.kwargs.items():
        argument = accepted.get(name)
        if argument is not None and argument.fits(value):
            continue
        if name in FETCHING:
            reason = "it makes a constructor fetch weights, and the weights are those of the file"
        elif argument is None:
            reason = f"{architecture.name} takes {some(sorted(accepted), len(accepted))}"
        else:
            reason = f"it has to be {argument.expected}"
        raise _refused(architecture, name, value, reason)


_PLAIN_WORD = re.compile(r"[A-Za-z0-9_ -]{0,64}")
_LARGEST = 1_000_000


def check_factory_arguments(architecture: ArchitectureRef, said: Mapping[str, Any]) -> None:
    """Raise `InputError` for an argument of the user's own code that only a file gives.

    Numbers up to a million, yes and no, and plain words are harmless; anything else (a path, an
    address, an argument that loads weights) the user has to have `said` as well.
    """
    for name, value in architecture.kwargs.items():
        if name in said and said[name] == value:
            continue
        if name in FETCHING or not _is_plain(value):
            raise _refused(
                architecture, name, value, "a file cannot say that",
                hint=f"if you want it, say it too: --arch-arg {name}=VALUE",
            )  # fmt: skip


def _is_plain(value: Any, depth: int = 2) -> bool:
    if isinstance(value, list | tuple):
        return depth > 0 and len(value) <= 64 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return _PLAIN_WORD.fullmatch(value) is not None
    if isinstance(value, int | float):
        return abs(value) <= _LARGEST  # not so for NaN
    return value is None


def _refused(
    architecture: ArchitectureRef, name: str, value: Any, reason: str, *, hint: str | None = None
) -> InputError:
    return InputError(
        f"the argument {name}={str(value)[:80]} of {architecture.name} is refused: {reason}",
        code="ARGUMENT_REFUSED",
        where=architecture.name,
        hint=hint or "give another value with --arch-arg, or take a file of another source",
    )
