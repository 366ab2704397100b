"""What a network returns for images, read as class scores, and the loss of every image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from prunecli.errors import InputError


def class_logits(output: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return (float32 logits [n, classes], those of auxiliary classifiers) from any model output.

    Understands a tensor, a (named) tuple whose `logits` or first field comes first, and a mapping
    with `logits` or `out`. Raises `InputError` (`NO_LOGITS`) for anything else.
    """
    if isinstance(output, Tensor):
        found = [output]
    elif isinstance(output, Mapping):
        found = [output[name] for name in ("logits", "out") if name in output][:1]
        found += [value for name, value in output.items() if "aux" in str(name)]
    elif hasattr(output, "logits"):
        rest = output if isinstance(output, tuple) else ()
        found = [output.logits, *(value for value in rest if value is not output.logits)]
    elif isinstance(output, tuple | list):
        found = list(output)
    else:
        found = []
    tensors = [value for value in found if isinstance(value, Tensor)]
    if not tensors or tensors[0].ndim != 2:
        described = f"shape {list(tensors[0].shape)}" if tensors else type(output).__name__
        raise InputError(
            f"the model does not return one row of class scores per image, but {described}",
            code="NO_LOGITS",
            hint="training and evaluation take classifiers with outputs [images, classes]",
        )
    logits, *others = tensors
    alike = tuple(other.float() for other in others if other.shape == logits.shape)
    return logits.float(), alike


def image_losses(output: Any, labels: Tensor) -> Tensor:
    """Return the cross-entropy of every image, `[images]`.

    Raises `InputError` (`CLASS_COUNT_MISMATCH`) for a label that there is no logit for.
    """
    check_label_range(tuple(first_tensor(output).shape), labels)
    return functional.cross_entropy(first_tensor(output), labels, reduction="none")


def check_label_range(shape: tuple[int, ...], labels: Tensor) -> None:
    """Raise `InputError` (`CLASS_COUNT_MISMATCH`) for a label that logits of `shape` lack."""
    if labels.numel() and len(shape) == 2 and int(labels.max()) >= shape[1]:
        raise InputError(
            f"a label is {int(labels.max())}; the model has {shape[1]} outputs",
            code="CLASS_COUNT_MISMATCH",
            hint="labels count from 0; give the data that the model was made for",
        )


def first_tensor(output: Any) -> Tensor:
    """Return the first tensor of a nested output: the logits."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output
