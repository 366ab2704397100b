"""Which channel groups are chosen from, and how many channels of each are executed."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation import Problem, ceilings_of
from prunecli.cost.alignment import default_alignment
from prunecli.errors import GraphError
from prunecli.methods.dynamic.constants import Constants
from prunecli.methods.dynamic.rewards import Rewards
from prunecli.methods.dynamic.shares import shared_widths
from prunecli.methods.learning.choice import ENOUGH
from prunecli.pruning.selection import Selection, select

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

PROBES = 4
"""Choices of channels whose programs are compared, of every group alone and of all together."""


def whole_groups(network: Network) -> dict[str, str]:
    """Return why groups stay whole: their channels cannot be left out exactly, or not unheard."""
    reasons: dict[str, str] = {}
    unheard = Rewards(network).unheard()
    for group in network.coupling.groups:
        if not group.exact:
            reasons[group.name] = "a norm runs over its channels: leaving some out is no mask"
        elif group.contracted:
            reasons[group.name] = "a product of two activations sums over its channels"
        elif unheard[group.atoms].any():
            reasons[group.name] = "nothing reads its channels where training could listen"
        elif group.width > 1 and not _has_one_structure(network, group):
            reasons[group.name] = "what the network computes depends on which of its channels run"
    return reasons


def uniform_widths(
    network: Network,
    budget: Budget,
    options: PruneOptions,
    *,
    held: Mapping[str, str] | None = None,
) -> Selection:
    """Return the widths at which about a common share of every group keeps the budget.

    They are aligned as those of any cut, but to the nearest multiple, so that the shares differ
    little. Groups of `whole_groups`, and those that are `held`, stay as they are. Raises what
    `select` raises.
    """
    groups, dense = network.coupling.groups, network.cost.dense_widths
    nothing = np.zeros(network.coupling.atom_count)
    reasons = {**whole_groups(network), **(held or {})}
    uniform = dataclasses.replace(options, allocation="uniform")
    # It says what stays whole, and refuses a budget that is out of reach.
    selection = select(network, nothing, budget, uniform, held=reasons, enough=ENOUGH)
    whole = {item.name for item in selection.whole}
    free = np.asarray([group.exact and group.name not in whole for group in groups])
    align = np.asarray([_alignment(group, options) for group in groups], np.int64)
    ones = np.ones_like(align)
    finer = (align,) if options.align is not None else (np.where(align >= 8, 4, 1), ones)
    least = np.asarray([-(-options.min_width // group.multiplicity) for group in groups])
    load = Problem(groups, nothing, network.cost, ceilings_of(budget, network.cost.dense), ()).load
    widths = shared_widths(
        load, dense, align=align, steps=finer, least=least, free=free, enough=ENOUGH
    )
    better = load(widths) <= 1 and bool((widths < dense).any())
    return dataclasses.replace(selection, widths=widths, warnings=()) if better else selection


def _alignment(group: ChannelGroup, options: PruneOptions) -> int:
    """Return how many atoms of a group make a multiple of channels that kernels like."""
    wanted = options.align or default_alignment(group.width * group.multiplicity)
    return max(wanted // math.gcd(wanted, group.multiplicity), 1)


def check_widths(network: Network, widths: Widths) -> None:
    """Raise `GraphError` (`DYNAMIC_WHOLE`) for widths that no choice of channels can have."""
    if network.trace.recorded or network.trace.folding is not None:
        why = network.trace.recorded or "its forward computes weights from others"
        raise GraphError(
            f"the channels of this model cannot be executed dynamically: {why}",
            code="DYNAMIC_NEEDS_GRAPH",
            where=type(network.model).__name__,
            hint="use --method one-shot, then prunecli finetune",
        )
    reasons = whole_groups(network)
    for group, width in zip(network.coupling.groups, widths.tolist(), strict=True):
        if not 1 <= width <= group.width or (width < group.width and group.name in reasons):
            raise GraphError(
                f"{width} of the {group.width} channels of {group.name} cannot be executed: "
                f"{reasons.get(group.name, 'there is no such number of them')}",
                code="DYNAMIC_WHOLE",
                where=group.name,
                hint="leave this group whole, or use --method iterative",
            )


def drawn_keep(
    groups: Sequence[ChannelGroup], widths: Widths, random: np.random.Generator
) -> NDArray[np.bool_]:
    """Return so many atoms of every group, drawn at random."""
    keep = np.zeros(sum(group.width for group in groups), np.bool_)
    for group, width in zip(groups, widths.tolist(), strict=True):
        keep[group.first + random.choice(group.width, width, replace=False)] = True
    return keep


def probed(network: Network, widths: Widths, constants: Constants | None = None) -> Constants:
    """Return the constants of networks of these widths, after a look at some of them.

    Raises `GraphError` (`DYNAMIC_STRUCTURE`) where their programs differ in more than numbers.
    """
    random = np.random.default_rng(0)
    groups = network.coupling.groups
    if constants is None:
        dense = network.cost.dense_widths
        keep = drawn_keep(groups, widths, random)
        constants = Constants(network, keep, np.repeat(widths < dense, dense))
    for _ in range(PROBES):
        constants.check(drawn_keep(groups, widths, random))
    return constants


def _has_one_structure(network: Network, group: ChannelGroup) -> bool:
    widths = network.cost.dense_widths.copy()
    widths[list(network.coupling.groups).index(group)] = max(group.width // 2, 1)
    try:
        probed(network, widths)
    except GraphError:
        return False
    return True
