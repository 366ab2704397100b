"""Signals by the names that people know; each says which point of the taxonomy it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.graph.rules.call import operator_name, schema_arguments
from prunecli.signals.score import (
    PRESETS,
    Site,
    Subject,
    by_atom,
    combine,
    producer_sites,
    rows_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

PRESETS.add(
    "magnitude",
    "weight/value/l2/l1",
    summary="Squared weights as a share of their layer's: comparable across layers.",
    source="prunecli",
)
PRESETS.add(
    "l1",
    "weight/value/l1/none",
    summary="Sum of absolute weights (default).",
    source="Li et al. 2017, arXiv 1608.08710",
)
PRESETS.add(
    "l2",
    "weight/value/l2/none",
    summary="Sum of squared weights.",
    source="as Li et al. 2017, with squares",
)
PRESETS.add(
    "taylor",
    "activation/taylor/abs-sum/l2",
    summary="Absolute first-order loss change per image, layerwise L2.",
    source="Molchanov et al. 2017, arXiv 1611.06440",
)
PRESETS.add(
    "taylor-share",
    "activation/taylor/abs-sum/l1",
    summary="Absolute first-order loss change per image, as a share of its layer's.",
    source="prunecli; Molchanov et al. 2017 with layerwise L1",
)
PRESETS.add(
    "fisher",
    "activation/taylor/sqr-sum/none",
    summary="Squared first-order loss change per image (Fisher, up to the factor 1/2).",
    source="Theis et al. 2018, arXiv 1801.05787",
)


@PRESETS.register(
    "bn-gamma",
    summary="Absolute batch-norm scale; groups without batch norm stay whole.",
    source="Liu et al. 2017, arXiv 1708.06519",
)
def batch_norm_scale(subject: Subject) -> Tensor:
    """Return |gamma| of the batch norms that a channel passes."""
    return combine(subject, _gamma_sites(subject))


def _gamma_sites(subject: Subject) -> Iterable[Site]:
    for node in subject.trace.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) != "batch_norm":
            continue
        weight = schema_arguments(node)["weight"]
        name = subject.trace.tensors.get(weight.name) if weight is not None else None
        if name is None or 0 not in subject.coupling.tensors.get(name, {}):
            continue
        yield Site(
            *by_atom(
                subject.tensors[name].detach().double().abs(), subject.coupling.tensors[name][0]
            )
        )


@PRESETS.register(
    "geometric-median",
    summary="Distance of a filter to all others of its layer: what others can replace goes first.",
    source="He et al. 2019 (FPGM), arXiv 1811.00250",
)
def geometric_median(subject: Subject) -> Tensor:
    """Return the sum of Euclidean distances of each filter to the other filters of its layer."""
    sites = []
    for name, dim, atoms in producer_sites(subject):
        rows = rows_of(subject, name, dim).double()
        sites.append(Site(*by_atom(torch.cdist(rows, rows).sum(1), atoms)))
    return combine(subject, sites)


@PRESETS.register("random", summary="A seeded draw: the control that every claim needs.")
def random(subject: Subject) -> Tensor:
    """Return uniform numbers from the subject's seed."""
    generator = torch.Generator().manual_seed(subject.seed)
    return torch.rand(subject.coupling.atom_count, generator=generator, dtype=torch.float64)
