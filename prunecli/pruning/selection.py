"""Which groups a budget cuts, and to what widths: options, patterns, and what gives way first."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.allocation import (
    CLOSE,
    Linked,
    Problem,
    Saliency,
    allocate,
    allowed_widths,
    ceilings_of,
    fast_widths,
    linked,
    refill,
)
from prunecli.budget import format_cost
from prunecli.cost.alignment import Alignment, close_steps, fine_steps
from prunecli.errors import GateError, GraphError, InputError
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import LAYERS, operator_name, schema_arguments
from prunecli.network.patterns import check_patterns, matches
from prunecli.report import FrozenReport
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.budget import Budget
    from prunecli.cost.kernel_time import KernelTime
    from prunecli.cost.model import CostModel, Widths
    from prunecli.cutting.equal_widths import Links
    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

Shapes = tuple[tuple[tuple[int, ...], ...], ...]

FINER = (4, 1)
"""Steps at which what the default ones leave of the budget is handed out."""


@dataclass(frozen=True)
class Selection:
    """The width of every group, the groups that stay whole and why, and what had to give way."""

    widths: Widths
    whole: tuple[FrozenReport, ...]
    warnings: tuple[str, ...]


def select(
    network: Network,
    saliency: Saliency,
    budget: Budget,
    options: PruneOptions,
    *,
    held: Mapping[str, str],
    importance: NDArray[np.float64] | None = None,
    gone: NDArray[np.bool_] | None = None,
    enough: float = CLOSE,
) -> Selection:
    """Return the widths under the budget; exact cuts alone where they suffice.

    By default those widths are taken that are fast on this machine (`allocation.stairs`), and
    others where less than `enough` of the budget is used and they cost no more time than the rest.

    `held` says why groups stay whole beside those that the options freeze; `importance` has one
    number per group, for allocations that look at it. Channels that are
    `gone` (one boolean per atom) go first, and without a limit in the budget they alone. Raises
    `InputError` (a pattern matches nothing, the budget is already met), `GraphError`
    (`NOTHING_TO_CUT`) and `GateError` (infeasible budget).
    """
    groups = network.coupling.groups
    check_patterns(network, options)
    reasons = {**why_whole(network, saliency, options), **_unseen(groups, importance), **held}
    left = _left(groups, gone, held)
    if not budget.limits:
        return Selection(left, whole_groups(network, reasons), ())
    _check_known(network.cost, budget)
    ceilings = ceilings_of(budget, network.cost.dense)
    if network.deleted and _is_met(network.cost.cost(left), ceilings):
        return Selection(left, whole_groups(network, reasons), ())
    _check_any_left(network, reasons)
    shapes, reads = weight_shapes(network), _fixed_reads(network)
    why = {**_why_layers_stay(network), **reasons}
    if gone is None or not gone.any():
        _check_not_met(network.cost, ceilings)
    else:
        saliency = np.where(gone, -np.inf, saliency)

    def problem(align: Alignment, *, inexact: bool) -> Problem:
        widths = allowed_widths(
            groups,
            eligible=lambda group: group.name not in reasons and (inexact or group.exact),
            align=align,
            min_width=options.min_width,
        )
        widths = tuple(
            np.append(own[own < full], full) for own, full in zip(widths, left, strict=True)
        )
        return Problem(
            groups, saliency, network.cost, ceilings, widths, shapes, importance, why, reads
        )

    attempts = _attempts(groups, options, network.linked)
    widths, align = _first_within(attempts, problem, options, network.kernel_time, enough)
    if bool((widths == network.cost.dense_widths).all()):
        raise GraphError(
            "nothing was cut: no group can lose a channel at this alignment",
            code="NOTHING_TO_CUT",
            hint="try --align 1",
        )
    concessions = tuple(_concessions(groups, widths, options, align))
    return Selection(widths, whole_groups(network, reasons), concessions)


def _left(
    groups: Sequence[ChannelGroup], gone: NDArray[np.bool_] | None, held: Mapping[str, str]
) -> Widths:
    """Return the width of every group without the channels that are gone, where it may lose any."""
    lost = (
        0 if gone is None or group.name in held else int(gone[group.atoms].sum())
        for group in groups
    )
    return np.asarray(
        [group.width - count for group, count in zip(groups, lost, strict=True)], np.int64
    )


def whole_groups(network: Network, reasons: Mapping[str, str]) -> tuple[FrozenReport, ...]:
    """Return the groups that stay whole, and why, with their share of the FLOPs."""
    shares = network.cost.share("flops")
    return tuple(
        FrozenReport(group.name, reasons[group.name], None, float(share))
        for group, share in zip(network.coupling.groups, shares, strict=True)
        if group.name in reasons
    )


def weight_shapes(network: Network) -> Shapes:
    """Return the shapes of the weights that make every group."""
    return tuple(
        tuple(
            tuple(network.tensors[name].shape)
            for name in dict.fromkeys(name for name, _ in group.producers)
        )
        for group in network.coupling.groups
    )


def _why_layers_stay(network: Network) -> dict[str, str]:
    """Return why the network itself holds channels, for every layer that makes some of them."""
    found: dict[str, str] = {}
    for item in network.coupling.frozen:
        reason = item.reason if item.where is None else f"{item.reason}, {item.where}"
        for tensor, _ in item.sites:
            found.setdefault(tensor.rpartition(".")[0] or tensor, reason)
    return found


def _fixed_reads(network: Network) -> dict[str, int]:
    """Return how many channels a layer reads, for every layer that reads none that can be cut."""
    found: dict[str, int] = {}
    for node in network.trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        arguments = schema_arguments(node) if operator in LAYERS else {}
        tensor = network.trace.tensors.get(arguments["weight"].name) if arguments else None
        if tensor is None or arguments.get("groups", 1) != 1:
            continue
        reading = 1 - PRODUCERS[operator]
        if reading not in network.coupling.tensors.get(tensor, {}):
            layer = tensor.rpartition(".")[0] or tensor
            found[layer] = int(arguments["weight"].meta["val"].shape[reading])
    return found


def _unseen(
    groups: Sequence[ChannelGroup], importance: NDArray[np.float64] | None
) -> dict[str, str]:
    """Return why groups stay whole whose importance nothing could measure."""
    if importance is None:
        return {}
    return {
        group.name: "its importance cannot be measured"
        for group, value in zip(groups, importance, strict=True)
        if np.isnan(value)
    }


def _first_within(
    attempts: Sequence[_Attempt],
    problem: Callable[..., Problem],
    options: PruneOptions,
    time: KernelTime | None,
    enough: float,
) -> tuple[Widths, Alignment]:
    """Return the widths of the first attempt that reaches the budget, and its alignment."""

    def widths(attempt: _Attempt) -> Widths:
        def at(align: Alignment) -> Linked:
            return linked(problem(align, inexact=attempt.inexact), attempt.links)

        sets = at(attempt.align)
        finer = [at(step).problem for step in FINER if options.align is None]
        if attempt.align is not close_steps or time is None:
            found = allocate(options.allocation, sets.problem)
            for other in finer:
                found = refill(other, found, enough=enough)
            return sets.expand(found)
        found = fast_widths(
            options.allocation,
            at(fine_steps).problem,
            sets.problem,
            lambda widths: time(sets.expand(widths)),
            finer=finer,
            enough=enough,
        )
        return sets.expand(found)

    *earlier, last = attempts
    for attempt in earlier:
        with suppress(GateError):
            return widths(attempt), attempt.align
    return widths(last), last.align


def _check_any_left(network: Network, reasons: Mapping[str, str]) -> None:
    groups = network.coupling.groups
    if groups and len(reasons) < len(groups):
        return
    raise GraphError(
        f"nothing can be cut: {len(groups)} channel groups, {len(reasons)} of them frozen",
        code="NOTHING_TO_CUT",
        where=next(
            iter((*reasons.values(), *_unfollowed(network), *_why_frozen(network))),
            "no layer makes channels that another one reads",
        ),
        hint="prunecli analyze shows what is frozen and why",
    )


def _unfollowed(network: Network) -> Iterator[str]:
    """Yield why operators freeze what they touch: no rule knows them, or theirs fails."""
    for reason, count in network.coupling.unfollowed.items():
        yield f"{reason} ({counted(count, 'call')})"


def _why_frozen(network: Network) -> Iterator[str]:
    """Yield what holds layers fast beside being the output, which some layer always is."""
    for item in network.coupling.frozen:
        if item.reason != "output of the model":
            yield f"{item.name}: {item.reason}"


@dataclass(frozen=True)
class _Attempt:
    """Whether cuts that are not exact are made too, the alignment, and groups of one width."""

    inexact: bool
    align: Alignment
    links: Links


def _attempts(
    groups: Sequence[ChannelGroup], options: PruneOptions, links: Links
) -> list[_Attempt]:
    """Return what is tried in turn, the best first.

    An alignment that the user names is kept; the default one is relaxed before cuts that are not
    exact are made, since a slower network is still the same network. Links go between the two: the
    graph that a network becomes without them is the same function as well.
    """
    aligns: tuple[Alignment, ...] = (
        (close_steps, 4, 1) if options.align is None else (options.align,)
    )
    inexact = (False,) if all(group.exact for group in groups) else (False, True)
    linking = (links, ()) if links else ((),)
    return [
        _Attempt(legal, align, links) for legal in inexact for links in linking for align in aligns
    ]


def _concessions(
    groups: Sequence[ChannelGroup], widths: Widths, options: PruneOptions, align: Alignment
) -> list[str]:
    """Say what had to be given up for the budget."""
    said = []
    if options.align is None and isinstance(align, int):
        said.append(
            f"the budget is out of reach at the default alignment; widths are multiples of {align}"
        )
    cut = sum(
        width < group.width and not group.exact for group, width in zip(groups, widths, strict=True)
    )
    if cut:
        said.append(
            f"{cut} groups are cut under a norm over channels (exact cuts alone do not reach the "
            "budget): the kept channels are normalised anew"
        )
    return said


def _is_met(costs: Mapping[str, float], ceilings: Mapping[str, float]) -> bool:
    return all(costs[kind] <= ceiling for kind, ceiling in ceilings.items())


def _check_not_met(cost: CostModel, ceilings: Mapping[str, float]) -> None:
    if _is_met(cost.dense, ceilings):
        kind, ceiling = next(iter(ceilings.items()))
        raise InputError(
            f"nothing to cut: the model has {format_cost(kind, cost.dense[kind])} {kind}, "
            f"already within {format_cost(kind, ceiling)}",
            code="ALREADY_WITHIN_BUDGET",
            hint="ask for less",
        )


def _check_known(cost: CostModel, budget: Budget) -> None:
    """Raise `InputError` for a budget of milliseconds where none were measured."""
    for limit in budget.limits:
        if limit.kind not in cost.dense:
            raise InputError(
                f"the budget {limit} needs a latency table, and none is there",
                code="NO_LATENCY_TABLE",
                hint="prunecli.prune(..., latency=0.7) and prunecli prune --latency measure one",
            )


def _narrowest(group: ChannelGroup, options: PruneOptions) -> int:
    (widths,) = allowed_widths(
        [group],
        eligible=lambda _: True,
        align=options.align or 1,
        min_width=options.min_width,
    )
    return int(widths[0])


def _why_no_narrower(group: ChannelGroup, options: PruneOptions) -> str:
    channels = group.width * group.multiplicity
    if group.width == 1 < channels:
        return f"its {channels} channels can only go together"
    if options.min_width >= channels > 1:
        return f"has only {channels} channels at --min-width {options.min_width}"
    if options.align is not None and channels > 1:
        return f"has only {channels} channels at --align {options.align}"
    return f"has only {channels} channels"


def why_whole(network: Network, saliency: Saliency, options: PruneOptions) -> dict[str, str]:
    """Return why a group stays whole, for every group that an option or the signal freezes."""
    reasons: dict[str, str] = {}
    for group in network.coupling.groups:
        if options.exclude and matches(group, options.exclude):
            reasons[group.name] = "--exclude"
        elif options.only and not matches(group, options.only):
            reasons[group.name] = "not named by --only"
        elif np.isnan(saliency[group.atoms]).any():
            reasons[group.name] = f"the signal {options.signal} cannot see its channels"
        elif _narrowest(group, options) == group.width:
            reasons[group.name] = _why_no_narrower(group, options)
    return reasons
