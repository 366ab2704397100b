"""Which weights and activations are the sites of channels, for a base input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from prunecli.signals.places import Tap, made_taps, read_taps

if TYPE_CHECKING:
    from torch import Tensor

    from prunecli.signals.subject import Subject


def taps_of(subject: Subject, *, made: bool) -> list[Tap]:
    """Return the activations in which channels are made, or read."""
    return (made_taps if made else read_taps)(subject.trace, subject.coupling)


def weight_sites(subject: Subject, *, made: bool) -> list[tuple[str, int]]:
    """Return every weight that makes (or reads) channels, and the dimension on which."""
    groups = subject.coupling.groups
    return sorted({s for group in groups for s in (group.producers if made else group.consumers)})


def inputs_of(subject: Subject) -> Tensor:
    """Return, per atom, how many channels the first layer that makes it reads, before any cut.

    Of a grouped convolution those of one of its groups.
    """
    inputs = torch.ones(subject.coupling.atom_count, dtype=torch.float64)
    for group in subject.coupling.groups:
        for name, dim in group.producers[:1]:
            shape = subject.dense_shapes.get(name, tuple(subject.tensors[name].shape))
            inputs[group.atoms] = float(shape[1 - dim]) if len(shape) > 1 else 1.0
    return inputs


def tensor_names(subject: Subject, *, made: bool) -> set[str]:
    """Return the weights (and biases) whose derivatives such a base input looks at."""
    names = {name for name, _ in weight_sites(subject, made=made)}
    biases = {bias for name in names if made and (bias := bias_of(subject, name))}
    return names | biases


def bias_of(subject: Subject, name: str) -> str | None:
    """Return the bias that counts among the weights of a layer's channels, if it has one."""
    bias = f"{name.removesuffix('weight')}bias"
    known = name.endswith("weight") and bias in subject.tensors
    sizes = subject.tensors[name].shape
    return bias if known and subject.tensors[bias].shape[0] in sizes[:2] else None
