"""Signals by the names that people know; each says which point of the taxonomy it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.signals.components import EXTENSION
from prunecli.signals.places import Places
from prunecli.signals.score import PRESETS, Adjusted, SiteScore, Subject
from prunecli.signals.sites import weight_sites
from prunecli.signals.sources import rows_of
from prunecli.signals.subject import combine

if TYPE_CHECKING:
    from collections.abc import Iterable

PENALTY = 1e-3
"""Loss (or normalised saliency) per million FLOPs that go, for the presets with a cost term.

The papers leave the unit open: here FLOPs are multiply-adds that go with one channel, its
consumers' share included.
"""

MOLCHANOV = "Molchanov et al. 2017, arXiv 1611.06440"
THEIS = "Theis et al. 2018, arXiv 1801.05787"
EVCI = "Evci 2018, arXiv 1806.06068"

for _name, _signal, _summary, _source in (
    (
        "magnitude",
        "weight/value/l2/l1",
        "Squared weights as a share of their layer's: comparable across layers.",
        "prunecli",
    ),
    (
        "l1",
        "weight/value/l1/none",
        "Sum of absolute weights (default).",
        "Li et al. 2017, arXiv 1608.08710",
    ),
    ("l2", "weight/value/l2/none", "Sum of squared weights.", "as Li et al. 2017, with squares"),
    ("min-weight", "weight/value/l2/l0", "Mean squared weight.", MOLCHANOV),
    ("mean-activation", "activation/value/l1/l0", "Mean absolute activation.", MOLCHANOV),
    (
        "apoz",
        "activation/positive/none/l0",
        "Fraction of positive activations (1 - APoZ): mostly-zero channels go first.",
        "Hu et al. 2016, arXiv 1607.03250",
    ),
    (
        "average-gradient",
        "activation/gradient/abs-sum/l0",
        "Absolute mean gradient per image.",
        "Persand et al. 2020 (myopic oracle)",
    ),
    (
        "taylor",
        "activation/taylor/abs-sum/l2",
        "Absolute first-order loss change per image, layerwise L2.",
        MOLCHANOV,
    ),
    (
        "taylor-share",
        "activation/taylor/abs-sum/l1",
        "Absolute first-order loss change per image, as a share of its layer's.",
        "prunecli; Molchanov et al. 2017 with layerwise L1",
    ),
    (
        "taylor-2019",
        "weight-batch/taylor/l2/none",
        "Squared first-order loss change of every weight, summed.",
        "Molchanov et al. 2019, arXiv 1906.10771",
    ),
    (
        "fisher",
        "activation/taylor/sqr-sum/none",
        "Squared first-order loss change per image (Fisher, up to the factor 1/2).",
        THEIS,
    ),
    (
        "fisher-per-flop",
        "activation/taylor/sqr-sum/flops-removed",
        "Fisher over the FLOPs removed: the cost-aware variant without a hyperparameter.",
        THEIS,
    ),
    (
        "obd",
        "weight/hessian-approx1/none/none",
        "Half the curvature times the squared weight, summed over a channel (OBD).",
        "LeCun et al. 1990",
    ),
    (
        "snip",
        "weight-batch/taylor/l1/l1",
        "Absolute weight times batch gradient, as a share of its layer's.",
        "Lee et al. 2019, arXiv 1810.02340, per channel",
    ),
    (
        "mean-replacement",
        "activation/mean-replacement/abs-sum/l0",
        "First-order loss change of replacing a channel by its mean (MRS).",
        EVCI,
    ),
    (
        "removal",
        "activation/taylor/abs-sum/l0",
        "First-order loss change of removing a channel, without layerwise norm (RS).",
        EVCI,
    ),
    (
        "l1-input",
        "weight-input/value/l1/none",
        "Sum of the absolute weights that read a channel.",
        EXTENSION,
    ),
):
    PRESETS.add(_name, _signal, summary=_summary, source=_source)


def with_cost(values: Tensor, removed: Tensor, *, price: float = PENALTY) -> Tensor:
    """Return `dL + price dC`: a saliency minus what its cost, in millions of FLOPs, is worth."""
    return values - price * removed


def _millions(subject: Subject) -> Tensor:
    return torch.as_tensor(subject.flops_removed) / 1e6


def _taylor_flops(values: Tensor, subject: Subject) -> Tensor:
    """Subtract the cost term, after the layerwise norm."""
    return with_cost(values, _millions(subject))


def _fisher_flops(values: Tensor, subject: Subject) -> Tensor:
    """Subtract the cost term of the Lagrangian from half the Fisher signal."""
    return with_cost(0.5 * values, _millions(subject))


def lamp(values: Tensor, subject: Subject) -> Tensor:
    """Return `s_u / sum of all s_v >= s_u` within every group: the largest has 1."""
    result = values.clone()
    for group in subject.coupling.groups:
        own = values[group.atoms]
        order = torch.argsort(own, stable=True)
        least = own[order].flip(0).cumsum(0).flip(0)
        scores = own[order] / torch.where(least == 0, torch.ones_like(least), least)
        result[group.first + order] = scores
    return result


PRESETS.add(
    "taylor-flops",
    Adjusted("activation/taylor/abs-sum/l2", _taylor_flops),
    summary="`taylor` minus 0.001 per million FLOPs that go with the channel.",
    source=MOLCHANOV,
)
PRESETS.add(
    "fisher-flops",
    Adjusted("activation/taylor/sqr-sum/none", _fisher_flops),
    summary="Half of `fisher` minus 0.001 per million FLOPs that go (the Lagrangian).",
    source=THEIS,
)
PRESETS.add(
    "lamp",
    Adjusted("weight/value/l2/none", lamp),
    summary="A channel's squared weights over those of all larger ones of its group.",
    source="Lee et al. 2021 (LAMP), arXiv 2010.07611; for groups: " + EXTENSION,
)


@PRESETS.register(
    "bn-gamma",
    summary="Absolute batch-norm scale; groups without batch norm stay whole.",
    source="Liu et al. 2017, arXiv 1708.06519",
)
def batch_norm_scale(subject: Subject) -> Tensor:
    """Return |gamma| of the batch norms that a channel passes."""
    return combine(subject, _gamma_sites(subject))


def _gamma_sites(subject: Subject) -> Iterable[SiteScore]:
    for node in subject.trace.graph.nodes:
        if node.op != "call_function" or operator_name(node.target) != "batch_norm":
            continue
        weight = schema_arguments(node)["weight"]
        name = subject.trace.tensors.get(weight.name) if weight is not None else None
        if name is None or 0 not in subject.coupling.tensors.get(name, {}):
            continue
        places = Places.of(subject.coupling.tensors[name][0])
        yield SiteScore(places.atoms, places.sum(subject.tensors[name].detach().double().abs()))


@PRESETS.register(
    "geometric-median",
    summary="Distance of a filter to all others of its layer: what others can replace goes first.",
    source="He et al. 2019 (FPGM), arXiv 1811.00250",
)
def geometric_median(subject: Subject) -> Tensor:
    """Return the sum of Euclidean distances of each filter to the other filters of its layer."""
    sites = []
    for name, dim in weight_sites(subject, made=True):
        rows = rows_of(subject, name, dim).double()
        places = Places.of(subject.coupling.tensors[name][dim])
        sites.append(SiteScore(places.atoms, places.sum(torch.cdist(rows, rows).sum(1))))
    return combine(subject, sites)


@PRESETS.register("random", summary="A seeded draw: the control that every claim needs.")
def random(subject: Subject) -> Tensor:
    """Return uniform numbers from the subject's seed."""
    generator = torch.Generator().manual_seed(subject.seed)
    return torch.rand(subject.coupling.atom_count, generator=generator, dtype=torch.float64)
