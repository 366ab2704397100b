"""The scalars of a base input at every site, batch by batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.signals.components import (
    BASE_INPUTS,
    Scalars,
)
from prunecli.signals.places import Places, Tap
from prunecli.signals.sites import bias_of, taps_of, weight_sites

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prunecli.signals.derive import Batch
    from prunecli.signals.subject import Subject

ZERO = torch.zeros(())


@dataclass(frozen=True)
class Source:
    """A site of a base input: its atoms, its scalars in a batch, and its elements by atom.

    `scalars` yields a few images at a time, with their number; `dense` counts the elements that
    there were before earlier cuts, where that may be another number.
    """

    places: Places
    scalars: Callable[[Batch | None], Iterator[tuple[Scalars, int]]]
    elements: Callable[[Scalars], Tensor]
    dense: Tensor | None = None


def sources_of(name: str, subject: Subject) -> list[Source]:
    """Return every site of a base input, by its name."""
    base = BASE_INPUTS.get(name)
    if base.activation:
        return [_activation(tap) for tap in taps_of(subject, made=base.made)]
    return [
        _weight(subject, tensor, dim, mean=not base.per_image, bias=base.made)
        for tensor, dim in weight_sites(subject, made=base.made)
    ]


def _activation(tap: Tap) -> Source:
    def scalars(batch: Batch | None) -> Iterator[tuple[Scalars, int]]:
        assert batch is not None
        known = (batch.values, batch.gradients, batch.curvatures)
        value, gradient, curvature = (
            _arranged(table[tap.node], tap, batch.images) if tap.node in table else ZERO
            for table in known
        )
        if tap.samples is None:
            # No image of its own to tell apart: the gradient of the mean loss.
            gradient, curvature = gradient / batch.images, curvature / batch.images
        yield Scalars(value, gradient, curvature), batch.images

    places = Places.of(tap.atoms)
    return Source(places, scalars, lambda s: _elements(s, places))


def _arranged(value: Tensor, tap: Tap, images: int) -> Tensor:
    """Return an activation as `[images, channels, positions]`."""
    value = value if value.element_size() >= 4 else value.float()
    dim = tap.dim
    if tap.samples is None:
        value, dim = value[None], dim + 1
    else:
        if tap.samples:
            value, dim = value.movedim(tap.samples, 0), dim + (dim < tap.samples)
        if len(value) != images and dim > 0:
            value, dim = value.reshape(images, -1, *value.shape[1:]), dim + 1
    value = value.movedim(dim, 1)
    return value.flatten(2) if value.dim() > 2 else value[:, :, None]


def _elements(scalars: Scalars, places: Places) -> Tensor:
    count, each = scalars.value.shape[1:]
    return places.sum(torch.full((count,), float(each), dtype=torch.float64))


def _weight(subject: Subject, name: str, dim: int, *, mean: bool, bias: bool) -> Source:
    atoms = subject.coupling.tensors[name][dim]
    places = Places.of(atoms)
    kernel = subject.tensors[name].shape[2:].numel()
    rows = _rows(subject, name, dim, lambda tensor: subject.tensors[tensor].detach()[None], bias)

    def read(batch: Batch, few: slice, *, curved: bool) -> Tensor:
        if not (batch.needs.curvature if curved else batch.needs.gradient):
            return ZERO
        if mean:
            return _rows(subject, name, dim, partial(batch.of_mean, curved=curved), bias)
        one = partial(batch.derivative, few=few, curved=curved)
        return _rows(subject, name, dim, one, bias)

    def scalars(batch: Batch | None) -> Iterator[tuple[Scalars, int]]:
        if batch is None:
            yield Scalars(rows, ZERO, ZERO, kernel=kernel), 1
            return
        for few in [slice(0, batch.images)] if mean else batch.pieces(name):
            gradient, curvature = (read(batch, few, curved=curved) for curved in (False, True))
            yield Scalars(rows, gradient, curvature, kernel=kernel), few.stop - few.start

    own = subject.tensors[name].shape
    shape = subject.dense_shapes.get(name, own)
    added = rows.shape[-1] - own.numel() // own[dim]  # the bias
    each = math.prod(size for other, size in enumerate(shape) if other != dim) + added
    dense = places.sum(torch.full((own[dim],), float(each), dtype=torch.float64))
    return Source(places, scalars, lambda s: _elements(s, places), dense)


def _rows(
    subject: Subject, name: str, dim: int, read: Callable[[str], Tensor], bias: bool
) -> Tensor:
    """Return a weight (and its bias) as `[samples, channels, scalars]`, in 32 bits or more."""
    rows = read(name).movedim(dim + 1, 1)
    rows = rows.reshape(*rows.shape[:2], -1)
    rows = rows if rows.element_size() >= 4 else rows.float()
    known = bias_of(subject, name) if bias else None
    if known and subject.tensors[known].shape[0] == subject.tensors[name].shape[dim]:
        own = read(known)
        rows = torch.cat([rows, own[:, :, None].to(rows).expand(*rows.shape[:2], 1)], dim=2)
    return rows


def rows_of(subject: Subject, name: str, dim: int) -> Tensor:
    """Return a weight (and its bias) as one row of scalars per channel, in 32 bits or more."""
    return _rows(subject, name, dim, lambda own: subject.tensors[own].detach()[None], bias=True)[0]
