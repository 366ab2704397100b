"""The report of a network that channels were cut from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from prunecli.network.described import (
    cut_cost,
    frozen_reports,
    group_reports,
    prune_report,
    rebuilt_warnings,
)
from prunecli.network.layers import cut_layers
from prunecli.plan import GRAPH
from prunecli.pruning.training_mode import training_warnings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.cost.model import CostModel
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.pruning.proven_cut import Cut
    from prunecli.report import GroupReport, LayerCut, PruneReport


def cut_report(
    network: Network,
    cut: Cut,
    options: PruneOptions,
    *,
    cost: CostModel,
    seconds: Mapping[str, float],
    architecture: str = "",
    importance: NDArray[np.float64] | None = None,
    warnings: Iterable[str] = (),
) -> PruneReport:
    """Return the report of a cut of `network`, or of the plan of one.

    `cost` is that of the network before anything was done to it, `importance` one number per group.
    """
    report = prune_report(
        network,
        options,
        plan=cut.plan.to_json(),
        cost=cut_cost(cost, cut.widths),
        frozen=(*frozen_reports(network), *cut.whole),
        mode=cut.plan.mode,
        seconds=seconds,
        architecture=architecture,
        verified=cut.verified,
        warnings=(
            *warnings,
            *(rebuilt_warnings(network) if cut.plan.mode == GRAPH else ()),
            *training_warnings(network, cut.plan.mode, cut.training),
        ),
    )
    groups = group_reports(network, cut.widths, importance)
    layers = cut_layers(network, cut.keep, cut.widths, whole=cut.whole)
    if network.whole is not None:
        groups = (*groups, *_deleted_groups(network, network.whole))
        layers = _with_deleted(layers, network.whole)
    return dataclasses.replace(report, groups=groups, layers=layers, training=cut.training)


def _deleted_groups(network: Network, whole: Network) -> Iterator[GroupReport]:
    """Yield the groups of which all channels are made in deleted blocks: none of them is left."""
    for group, report in zip(
        whole.coupling.groups,
        group_reports(whole, np.zeros_like(whole.cost.dense_widths)),
        strict=True,
    ):
        if {name for name, _ in group.producers} <= network.gone:
            yield report


def _with_deleted(left: Sequence[LayerCut], whole: Network) -> tuple[LayerCut, ...]:
    """Return the layers of the whole network: those of deleted blocks keep nothing."""
    by_name = {layer.name: layer for layer in left}
    every = cut_layers(whole, np.ones(whole.coupling.atom_count, np.bool_), whole.cost.dense_widths)
    return tuple(
        by_name.get(layer.name)
        or dataclasses.replace(layer, kept=0, flops_kept=0.0, params_kept=0.0, reason="")
        for layer in every
    )
