"""The report of a network that channels were cut from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from prunecli.network.described import cut_cost, frozen_reports, group_reports, prune_report
from prunecli.network.layers import cut_layers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.cost.model import CostModel
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.pruning.proven_cut import Cut
    from prunecli.report import PruneReport


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
        warnings=warnings,
    )
    return dataclasses.replace(
        report,
        groups=group_reports(network, cut.widths, importance),
        layers=cut_layers(network, cut.keep, cut.widths, whole=cut.whole),
    )
