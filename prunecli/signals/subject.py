"""What signals look at, and how the sites of an atom are brought together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prunecli.errors import InputError
from prunecli.signals.components import AGGREGATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from prunecli.evaluation.batches import BatchSource
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace
    from prunecli.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A traced network with its tensors, as signals see it.

    `weights_removed`, `flops_removed` and `latency_removed` say, per atom, what goes with it;
    `dense_shapes` holds the shapes that tensors had before earlier cuts.
    """

    signal: str
    trace: Trace
    coupling: CouplingGraph
    tensors: Mapping[str, Tensor]
    weights_removed: NDArray[np.float64]
    flops_removed: NDArray[np.float64]
    latency_removed: NDArray[np.float64]
    dense_shapes: Mapping[str, tuple[int, ...]]
    batches: BatchSource | None
    aggregate: str
    seed: int
    progress: Progress


@dataclass(frozen=True)
class SiteScore:
    """Where a group's channels can be read: `values` is `[atoms found]` for `atoms` `[same]`."""

    atoms: Tensor
    values: Tensor


def combine(subject: Subject, sites: Iterable[SiteScore]) -> Tensor:
    """Aggregate the sites of every atom by the subject's rule; NaN where there is none."""
    count = subject.coupling.atom_count
    rows = []
    for site in sites:
        # NaN stands for "not at this site" below, so a signal that is NaN must not get there.
        check_finite(subject.signal, site.values.double().cpu().numpy())
        row = torch.full((count,), torch.nan, dtype=torch.float64)
        row[site.atoms.cpu()] = site.values.double().cpu()
        rows.append(row)
    if not rows:
        return torch.full((count,), torch.nan, dtype=torch.float64)
    # An atom is in few of the sites: give each its own sites only, in order, one below another.
    stacked = torch.stack(rows)
    present = ~stacked.isnan()
    order = torch.argsort((~present).to(torch.int8), dim=0, stable=True)
    depth = int(present.sum(0).max())
    compact = stacked.gather(0, order)[: max(depth, 1)]
    result = AGGREGATES.get(subject.aggregate)(compact)
    return torch.where(present.any(0), result, torch.nan)


def check_finite(signal: str, values: NDArray[np.float64]) -> None:
    """Raise `InputError` for a saliency that is infinite or not a number."""
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(
            f"the signal {signal} is not finite for {bad} channels",
            code="BAD_SALIENCY",
            hint="the weights or activations overflow; try another signal",
        )


def no_latencies(signal: str) -> InputError:
    """Return the error of a signal that lacks a latency table."""
    return InputError(
        f"the signal {signal} is scaled by milliseconds, and no latency table is there",
        code="SIGNAL_NEEDS_TABLE",
        hint="add --latency-table FILE: it is read, or measured if it does not exist",
    )
