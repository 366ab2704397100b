"""How far a network does what another one does: every output, on the same images, no labels.

One number per output says how much of the reference is met, from 1 (all of it) to 0:

| kind | agreement |
| --- | --- |
| class scores | the share of images with the same largest score |
| class map | mean intersection over union of the classes that are largest at every pixel |
| embedding | mean cosine |
| values | 1 - the squared error as a part of the reference's variance, channel by channel (R^2) |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from prunecli.errors import InputError
from prunecli.evaluation.intervals import Z
from prunecli.evaluation.output_kinds import (
    EMBEDDING,
    MAP,
    SCORES,
    VALUES,
    OutputKind,
    image_errors,
)
from prunecli.evaluation.relative import relative_errors
from prunecli.report import OutputAgreement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.processes import Processes


@dataclass
class Agreements:
    """Gathers how far outputs follow those of a reference, batch by batch."""

    kinds: Sequence[OutputKind]
    rows: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)

    def add(self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> None:
        """Take in the outputs of both for the same images."""
        for kind in self.kinds:
            found = _figures(kind, own[kind.name].detach(), reference[kind.name].detach())
            self.rows.setdefault(kind.name, []).append(found)

    def over(self, processes: Processes) -> Agreements:
        """Return what all processes have gathered, each of images of its own."""
        gathered = processes.gathered(self.rows)
        rows = {
            kind.name: [row for each in gathered for row in each.get(kind.name, ())]
            for kind in self.kinds
        }
        return Agreements(self.kinds, rows)

    def outputs(self) -> tuple[OutputAgreement, ...]:
        """Return every output with its figures."""
        return tuple(_summed_up(kind, self._rows(kind)) for kind in self.kinds)

    def parts(self) -> Tensor:
        """Return the agreement as a mean over images [n], of all outputs alike.

        Of a ratio of sums (intersection over union) these are the parts to the first order.
        """
        each = [_PARTS[kind.kind](self._rows(kind)) for kind in self.kinds]
        return torch.stack(each).mean(0)

    def _rows(self, kind: OutputKind) -> dict[str, Tensor]:
        rows = self.rows[kind.name]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def mean_interval(parts: Tensor) -> tuple[float, float, float]:
    """Return a mean over images [n] with its 95 % interval, by the normal distribution.

    >>> [round(value, 3) for value in mean_interval(torch.tensor([0.0, 1.0, 1.0, 0.0]))]
    [0.5, -0.066, 1.066]
    """
    mean = float(parts.double().mean())
    if len(parts) < 2:
        return mean, mean, mean
    half = Z * float(parts.double().std()) / len(parts) ** 0.5
    return mean, mean - half, mean + half


def paired_names(own: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the name in `own` of every output of the reference; raise where one has no partner.

    Outputs are partners by name, or by their place where both have as many and no names in common.
    The error is an `InputError` (`OTHER_OUTPUTS`).
    """
    if set(reference) <= set(own):
        pairs = {name: name for name in reference}
    elif len(own) == len(reference) and not set(own) & set(reference):
        pairs = dict(zip(reference, own, strict=True))
    else:
        raise _other_outputs(f"{_listed(own)}, the reference {_listed(reference)}")
    for name, partner in pairs.items():
        mine, its = own[partner].shape[1:], reference[name].shape[1:]
        if mine != its:
            raise _other_outputs(f"{_sizes(mine)} for {name}, the reference {_sizes(its)}")
    if not pairs:
        raise _other_outputs("no numbers, the reference neither")
    return pairs


def _other_outputs(both: str) -> InputError:
    return InputError(
        f"the models cannot be compared: one returns {both}",
        code="OTHER_OUTPUTS",
        hint="give the model that this one was pruned from, or another one of the same task",
    )


def _listed(outputs: Mapping[str, Tensor]) -> str:
    names = [f"{name} ({_sizes(value.shape[1:])})" for name, value in outputs.items()]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "one number"


def _figures(kind: OutputKind, own: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Return the figures of every image: a row each."""
    flat, its = (value.reshape(len(value), -1).double() for value in (own, reference))
    found = {
        "error": torch.from_numpy(relative_errors(_array(own), _array(reference))),
        "cosine": functional.cosine_similarity(flat, its, dim=1).cpu(),
    }
    if kind.kind == VALUES:
        found["matched"] = 1 - image_errors(kind, own, reference).double().cpu()
    if own.ndim == 2 and own.shape[1] > 1:
        found["same"] = (own.argmax(1) == reference.argmax(1)).double().cpu()
    if kind.kind == MAP:
        found |= overlaps(own.argmax(1), reference.argmax(1), own.shape[1])
    return found


def overlaps(own: Tensor, reference: Tensor, classes: int) -> dict[str, Tensor]:
    """Return pixels of every image in the intersection and in the union of each class [n, K].

    `same` [n] is the share of pixels of the same class. Maps [n, h, w] hold classes; what is
    negative in the reference is in neither.
    """
    own, reference = own.flatten(1).cpu(), reference.flatten(1).cpu()
    counted = reference >= 0
    both = torch.where((own == reference) & counted, reference, classes)
    first = torch.where(counted, own, classes)
    second = torch.where(counted, reference, classes)
    met, one, other = (_counts(each, classes) for each in (both, first, second))
    known = counted.sum(1).clamp(min=1)
    return {"same": met.sum(1) / known, "met": met, "union": one + other - met}


def _counts(values: Tensor, classes: int) -> Tensor:
    """Return how often each class from 0 to K - 1 is among the values [n, p] of a row: [n, K]."""
    found = torch.zeros(len(values), classes + 1, dtype=torch.float64)
    found.scatter_add_(1, values.long(), torch.ones_like(values, dtype=torch.float64))
    return found[:, :classes]


def class_overlaps(met: Tensor, union: Tensor) -> Tensor:
    """Return intersection over union of each class [K] over images [n, K]; NaN where none is."""
    return met.sum(0) / union.sum(0)


def overlap_parts(met: Tensor, union: Tensor) -> Tensor:
    """Return the mean intersection over union as a mean over images [n], to the first order.

    The ratio of sums I / U changes with image i by (I_i - (I / U) U_i) / U (the delta method).
    """
    there = union.sum(0) > 0
    met, union = met[:, there], union[:, there]
    each = class_overlaps(met, union)
    change = (met - each * union) / union.mean(0)
    return each.mean() + change.mean(1)


_PARTS: dict[str, Callable[[Mapping[str, Tensor]], Tensor]] = {
    SCORES: lambda rows: rows["same"],
    MAP: lambda rows: overlap_parts(rows["met"], rows["union"]),
    EMBEDDING: lambda rows: rows["cosine"],
    VALUES: lambda rows: rows["matched"],
}
"""By kind: the agreement as a mean over images [n]."""


def _summed_up(kind: OutputKind, rows: Mapping[str, Tensor]) -> OutputAgreement:
    overlap = None
    if "met" in rows:
        overlap = float(class_overlaps(rows["met"], rows["union"]).nanmean())
    return OutputAgreement(
        name=kind.name,
        kind=kind.kind,
        shape=kind.shape,
        agreement=max(0.0, float(_PARTS[kind.kind](rows).mean())),
        cosine=float(rows["cosine"].mean()),
        median_rel_error=float(np.median(rows["error"].numpy())),
        max_rel_error=float(rows["error"].max()),
        same_class=float(rows["same"].mean()) if "same" in rows else None,
        iou=overlap,
    )


def _array(value: Tensor) -> NDArray[Any]:
    return np.asarray(value.float().cpu().numpy())
