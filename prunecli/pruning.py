"""The road of one cut: trace, couple, cost, score, allocate, cut, prove. No files, no screen."""

from __future__ import annotations

import dataclasses
import fnmatch
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.allocation import (
    ALLOCATIONS,
    Alignment,
    Problem,
    Saliency,
    allocate,
    allowed_widths,
    ceilings_of,
    default_alignment,
    fill,
    keep_mask,
)
from prunecli.attributes import mirrored_attributes
from prunecli.budget import format_quantity
from prunecli.checks import check_example, check_network
from prunecli.cost import CostModel, Widths, model_cost
from prunecli.errors import GateError, GraphError, InputError, ProofError
from prunecli.graph.coupling import ChannelGroup, CouplingGraph, couple
from prunecli.graph.emit import constant_name, emit
from prunecli.graph.folding import fold, folded_tensors, stored_tensors
from prunecli.graph.network import build, check_layer_names
from prunecli.graph.rewrites import baked_sizes
from prunecli.graph.trace import Example, Trace, trace
from prunecli.options import PruneOptions
from prunecli.plan import PruningPlan
from prunecli.progress import Progress, Step, silent
from prunecli.report import CutCost, FrozenReport, GroupReport, PruneReport, Verified
from prunecli.signals import AGGREGATES, PRESETS, needs_data, parse_signal, score
from prunecli.surgery import cut_module, cut_tensor, slices_of
from prunecli.temperature import temperature_factors
from prunecli.verify import prove

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from prunecli.budget import Budget
    from prunecli.signals.score import Batches

MODULE, GRAPH = "module", "graph"

FINER = (4, 1)
"""Alignments at which what the default one leaves of the budget is handed out."""


@dataclass(frozen=True)
class PruneResult:
    """A cut network with its plan; `program` is the graph as JSON where graph mode was needed.

    For a dry run `model` is None.
    """

    model: nn.Module | None
    plan: PruningPlan
    report: PruneReport
    program: Mapping[str, Any] | None

    @property
    def frozen(self) -> tuple[FrozenReport, ...]:
        """What could not be cut, and why."""
        return self.report.frozen


@dataclass(frozen=True)
class Network:
    """A traced and coupled network: what every question about it starts from."""

    model: nn.Module
    trace: Trace
    coupling: CouplingGraph

    @cached_property
    def cost(self) -> CostModel:
        """The closed forms of its costs."""
        return model_cost(self.trace, self.coupling, self.model)

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by name, detached."""
        constants = {constant_name(name): value for name, value in self.trace.constants.items()}
        named = folded_tensors(self.trace, stored_tensors(self.model))
        return {**named, **constants}

    @property
    def outputs(self) -> int:
        """The size of the last dimension of the first output: the number of classes."""
        output = next(node for node in self.trace.graph.nodes if node.op == "output")
        return int(output.all_input_nodes[0].meta["val"].shape[-1])

    def weights_removed(self) -> NDArray[np.float64]:
        """Return, per atom, the parameters that go when it alone is removed."""
        per_group = self.cost.gradient("params", self.cost.dense_widths)
        return np.repeat(per_group, [group.width for group in self.coupling.groups])

    def graph_network(self, keep: NDArray[np.bool_]) -> tuple[nn.Module, dict[str, Any]]:
        """Return the re-emitted network that keeps these atoms, and its program."""
        check_layer_names(self.trace.tensors.values())
        program = emit(self.trace, self.coupling, keep)
        slices = slices_of(self.coupling, keep)
        tensors = {
            name: cut_tensor(value, slices.get(name, {})) for name, value in self.tensors.items()
        }
        network = build(program, tensors)
        held = {name for name, value in self.model.named_parameters() if not value.requires_grad}
        for name, value in network.named_parameters():
            value.requires_grad_(value.requires_grad and name not in held)
        return network, program


@dataclass
class Clock:
    """Seconds by stage, and the stage reported as progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        self.progress(Step(name, 0))
        start = time.perf_counter()
        try:
            yield
        finally:
            # A stage may run twice: a cut in module mode that fails is followed by graph mode.
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.seconds[name] = round(spent, 4)


def read_network(model: nn.Module, example: Example, *, clock: Clock | None = None) -> Network:
    """Trace and couple a network; raises what `trace` raises, and `InputError` for bad weights."""
    clock = clock or Clock(silent)
    check_network(model)
    check_example(example)
    with clock.stage("trace"):
        traced = fold(trace(model, example), stored_tensors(model))
    with clock.stage("couple"):
        coupling = couple(traced)
    return Network(model, traced, coupling)


def prune_network(
    model: nn.Module,
    example: Example,
    *,
    budget: Budget,
    options: PruneOptions | None = None,
    batches: Callable[[], Batches] | None = None,
    dry_run: bool = False,
    architecture: str = "",
    progress: Progress = silent,
) -> PruneResult:
    """Cut `model` until it keeps `budget`, and prove the cut; `model` itself is left untouched.

    `example` holds the inputs of one forward (any batch size); `batches` yields normalised images
    and labels for signals that look at data. Raises `GraphError` (cannot be traced, nothing can be
    cut), `GateError` (infeasible budget), `InputError` and `ProofError`.
    """
    options = options or PruneOptions()
    check_options(options)
    clock = Clock(progress)
    network = read_network(model, example, clock=clock)
    warnings = _trace_warnings(network)
    with clock.stage("cost"):
        cost = network.cost
    with clock.stage("score"):
        saliency = score_network(network, options, batches=batches, progress=progress)
    held: dict[str, str] = {}
    slim, program, verified = None, None, None
    while True:
        said: list[str] = []
        with clock.stage("allocate"):
            widths, excluded = _choose(network, saliency, budget, options, warnings=said, held=held)
        keep = keep_mask(network.coupling.groups, np.nan_to_num(saliency, nan=np.inf), widths)
        plan = _plan(network, keep, widths, budget=budget, options=options)
        if dry_run:
            break
        try:
            slim, program, verified = _cut(network, plan, keep, options, clock)
            break
        except ProofError as error:
            held = _newly_held(network, keep, held, error)
    warnings += said
    if program is not None:
        plan = _in_graph_mode(plan)
    report = PruneReport(
        output=None,
        plan=plan.to_json(),
        cost=cut_cost(cost, widths),
        verified=verified,
        groups=_group_reports(network, widths),
        frozen=(*frozen_reports(network), *excluded),
        architecture=architecture or type(model).__name__,
        mode=plan.mode,
        signal=options.signal,
        allocation=options.allocation,
        align="auto" if options.align is None else str(options.align),
        seconds=clock.seconds,
        warnings=tuple(warnings),
    )
    return PruneResult(slim, plan, report, program)


def check_options(options: PruneOptions) -> None:
    """Raise `InputError` for a name or number that means nothing, before any work."""
    if "/" in options.signal:
        parse_signal(options.signal)
    else:
        PRESETS.get(options.signal)
    ALLOCATIONS.get(options.allocation)
    AGGREGATES.get(options.aggregate)
    for name, value in (("align", options.align), ("min-width", options.min_width)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value} is below 1", code="BAD_OPTION")


def score_network(
    network: Network,
    options: PruneOptions,
    *,
    batches: Callable[[], Batches] | None = None,
    progress: Progress = silent,
) -> Saliency:
    """Return one saliency per atom; NaN where the signal cannot see it."""
    return score(
        options.signal,
        network.trace,
        network.coupling,
        network.tensors,
        weights_removed=network.weights_removed(),
        batches=batches if needs_data(options.signal) else None,
        aggregate=options.aggregate,
        seed=options.seed,
        progress=progress,
    )


def cut_cost(cost: CostModel, widths: Widths) -> CutCost:
    """Return the costs before and after, and the fraction kept of each."""
    before, after = cost.dense, cost.cost(widths)
    return CutCost(
        before=cost.report_dense(),
        after=cost.report(widths),
        kept={kind: after[kind] / before[kind] if before[kind] else 1.0 for kind in before},
    )


def frozen_reports(network: Network) -> tuple[FrozenReport, ...]:
    """Return what the network itself holds fast, with the share of FLOPs of those layers."""
    cost = network.cost
    return tuple(
        FrozenReport(
            item.name,
            item.reason,
            item.where,
            cost.share_of_tensors({name for name, _ in item.sites}),
        )
        for item in network.coupling.frozen
    )


# --- which groups may be cut ---------------------------------------------------------------------


def matches(group: ChannelGroup, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern names the group or a layer that makes its channels."""
    layers = {group.name} | {name.rpartition(".")[0] for name, _ in group.producers}
    return any(fnmatch.fnmatchcase(layer, pattern) for layer in layers for pattern in patterns)


def _choose(
    network: Network,
    saliency: Saliency,
    budget: Budget,
    options: PruneOptions,
    *,
    warnings: list[str],
    held: Mapping[str, str],
) -> tuple[Widths, tuple[FrozenReport, ...]]:
    """Return the widths under the budget; exact cuts alone where they suffice."""
    groups = network.coupling.groups
    _check_patterns(network, options)
    reasons = {**_reasons(network, saliency, options), **held}
    if not groups or len(reasons) == len(groups):
        raise GraphError(
            f"nothing can be cut: {len(groups)} channel groups, {len(reasons)} of them held fast",
            code="NOTHING_TO_CUT",
            where=next(
                iter((*reasons.values(), *_why_frozen(network))),
                "no layer makes channels that another one reads",
            ),
            hint="prunecli analyze shows what is frozen and why",
        )
    cost, ceilings = network.cost, ceilings_of(budget, network.cost.dense)
    _check_not_met(cost, ceilings)
    widths = None
    attempts = _attempts(groups, options)

    def problem(align: Alignment, *, inexact: bool) -> Problem:
        widths = allowed_widths(
            groups,
            eligible=lambda group: group.name not in reasons and (inexact or group.exact),
            align=align,
            min_width=options.min_width,
        )
        return Problem(groups, saliency, cost, ceilings, widths)

    for inexact, align in attempts:
        try:
            widths = allocate(options.allocation, problem(align, inexact=inexact))
            for finer in FINER if options.align is None else ():
                widths = fill(problem(finer, inexact=inexact), widths)
        except GateError:
            if (inexact, align) == attempts[-1]:
                raise
            continue
        warnings.extend(_concessions(groups, widths, options, align))
        break
    assert widths is not None
    if bool((widths == cost.dense_widths).all()):
        raise GraphError(
            "nothing was cut: no group can lose a channel at this alignment",
            code="NOTHING_TO_CUT",
            hint="try --align 1",
        )
    excluded = tuple(
        FrozenReport(group.name, reasons[group.name], None, float(share))
        for group, share in zip(groups, cost.share("flops"), strict=True)
        if group.name in reasons
    )
    return widths, excluded


def _why_frozen(network: Network) -> Iterator[str]:
    """Yield what holds layers fast beside being the output, which some layer always is."""
    for item in network.coupling.frozen:
        if item.reason != "output of the network":
            yield f"{item.name}: {item.reason}"


def _attempts(
    groups: Sequence[ChannelGroup], options: PruneOptions
) -> list[tuple[bool, Alignment]]:
    """Return what is tried in turn: (inexact cuts too?, alignment), the best first.

    An alignment that the user names is kept; the default one is relaxed before cuts that are not
    exact are made, since a slower network is still the same network.
    """
    aligns: tuple[Alignment, ...] = (
        (default_alignment, 4, 1) if options.align is None else (options.align,)
    )
    inexact = (False,) if all(group.exact for group in groups) else (False, True)
    return [(legal, align) for legal in inexact for align in aligns]


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


def _check_not_met(cost: CostModel, ceilings: Mapping[str, float]) -> None:
    if all(cost.dense[kind] <= ceiling for kind, ceiling in ceilings.items()):
        kind, ceiling = next(iter(ceilings.items()))
        raise InputError(
            f"nothing to cut: the network has {format_quantity(cost.dense[kind])} {kind}, "
            f"already within {format_quantity(ceiling)}",
            code="ALREADY_WITHIN_BUDGET",
            hint="ask for less",
        )


def _check_patterns(network: Network, options: PruneOptions) -> None:
    groups = network.coupling.groups
    # To exclude what stays whole anyway (the classifier) is no mistake; to ask for it alone is.
    layers = [name for name, _ in network.model.named_modules()]
    whole = {"--exclude": layers, "--only": []}
    for flag, patterns in (("--exclude", options.exclude), ("--only", options.only)):
        for pattern in patterns:
            found = any(matches(group, [pattern]) for group in groups)
            if not found and not fnmatch.filter(whole[flag], pattern):
                names = ", ".join(group.name for group in groups[:5])
                raise InputError(
                    f"{flag} {pattern} matches no layer",
                    code="NO_SUCH_LAYER",
                    hint=f"layers are called {names} ...; prunecli analyze lists them all",
                )


def _narrowest(group: ChannelGroup, options: PruneOptions) -> int:
    (widths,) = allowed_widths(
        [group],
        eligible=lambda _: True,
        align=options.align or 1,
        min_width=options.min_width,
    )
    return int(widths[0])


def _reasons(network: Network, saliency: Saliency, options: PruneOptions) -> dict[str, str]:
    """Return why a group stays whole, for every group that an option or the signal holds fast."""
    reasons: dict[str, str] = {}
    for group in network.coupling.groups:
        if options.exclude and matches(group, options.exclude):
            reasons[group.name] = "--exclude"
        elif options.only and not matches(group, options.only):
            reasons[group.name] = "not named by --only"
        elif np.isnan(saliency[group.atoms]).any():
            reasons[group.name] = f"the signal {options.signal} cannot see its channels"
        elif _narrowest(group, options) == group.width:
            reasons[group.name] = f"has only {group.width * group.multiplicity} channels"
    return reasons


def _trace_warnings(network: Network) -> list[str]:
    warnings = []
    if network.trace.recorded:
        warnings.append(
            f"torch.export cannot trace this network ({network.trace.recorded}); one real forward "
            "was recorded instead: costs are those of that forward, and only the network's own "
            "module can be cut"
        )
    if network.trace.unused and network.trace.recorded:
        warnings.append(
            f"no forward tried reached {len(network.trace.unused)} parameters "
            f"({network.trace.unused[0]}, ...): an input that does may not fit the cut network"
        )
    elif network.trace.unused:
        first = network.trace.unused[0]
        warnings.append(
            f"{len(network.trace.unused)} parameters are not used in evaluation ({first}, ...): "
            "they are left as they are"
        )
    if network.trace.folding is not None:
        folded = tuple(network.trace.folding.tensors)
        count = "1 weight is" if len(folded) == 1 else f"{len(folded)} weights are"
        warnings.append(
            f"{count} computed from others in the forward, as weight standardisation and weight "
            f"norm do ({folded[0]}{', ...' if len(folded) > 1 else ''}): folded into plain ones"
        )
    warnings.extend(
        f"operator {name} has no rule ({count} times): the channels that it touches are frozen"
        for name, count in network.coupling.unknown.items()
    )
    return warnings


# --- cut and prove -------------------------------------------------------------------------------


def _plan(
    network: Network,
    keep: NDArray[np.bool_],
    widths: Widths,
    *,
    budget: Budget,
    options: PruneOptions,
) -> PruningPlan:
    return PruningPlan(
        fingerprint=network.coupling.fingerprint,
        keep={
            group.name: tuple(np.flatnonzero(keep[group.atoms]).tolist())
            for group in network.coupling.groups
        },
        slices=slices_of(network.coupling, keep),
        attributes=mirrored_attributes(network.model, network.trace, network.coupling, keep),
        factors=temperature_factors(network.trace, network.coupling, keep),
        signal=options.signal,
        allocation=options.allocation,
        budget=budget.to_json(),
        cost_before=network.cost.dense,
        cost_after=network.cost.cost(widths),
        seed=options.seed,
    )


def _cut(
    network: Network,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
    options: PruneOptions,
    clock: Clock,
) -> tuple[nn.Module, dict[str, Any] | None, Verified]:
    """Cut in module mode; where the forward has sizes baked in, in graph mode. Either is proven.

    A module that computes its weights, or that cannot be copied, is cut in graph mode directly.
    """
    if network.trace.folding is None:
        try:
            with clock.stage("cut"):
                slim = cut_module(
                    network.model, plan.slices, attributes=plan.attributes, factors=plan.factors
                )
            with clock.stage("prove"):
                return slim, None, _prove(network, slim, plan, keep, options)
        except (GraphError, ProofError):
            slim = None
            if network.trace.recorded:
                raise
    with clock.stage("cut"):
        rebuilt, program = network.graph_network(keep)
    rebuilt.train(network.model.training)
    with clock.stage("prove"):
        return rebuilt, program, _prove(network, rebuilt, _in_graph_mode(plan), keep, options)


def _in_graph_mode(plan: PruningPlan) -> PruningPlan:
    """Return the plan of the re-emitted graph, which has its sizes and temperatures written in."""
    return dataclasses.replace(plan, mode=GRAPH, attributes={}, factors={})


def _newly_held(
    network: Network, keep: NDArray[np.bool_], held: Mapping[str, str], failure: ProofError
) -> dict[str, str]:
    """Return the groups to leave whole after a proof failed, and why.

    A recorded graph says which sizes may be written in the forward, but cannot replace it. Else the
    suspects are channels that meet without a weight between, then those of attention, then those
    under norms. Raises the failure where there is nothing more to leave whole.
    """
    if network.trace.recorded:
        found = baked_sizes(network.trace, network.coupling, keep)
        if found.keys() - held.keys():
            return {**held, **found}
    cut = [group for group in network.coupling.groups if not keep[group.atoms].all()]
    for suspect in (lambda group: group.contracted, lambda group: group.axes > 1, _is_inexact):
        groups = {group.name: "its cut could not be proven" for group in cut if suspect(group)}
        if groups:
            return {**held, **groups}
    raise failure


def _is_inexact(group: ChannelGroup) -> bool:
    return not group.exact


def _prove(
    network: Network,
    slim: nn.Module,
    plan: PruningPlan,
    keep: NDArray[np.bool_],
    options: PruneOptions,
) -> Verified:
    return prove(
        network.model,
        slim,
        plan.slices,
        keep,
        trace=network.trace,
        coupling=network.coupling,
        factors=plan.factors,
        seed=options.seed,
    )


def _group_reports(network: Network, widths: Widths) -> tuple[GroupReport, ...]:
    flops, params = network.cost.share("flops"), network.cost.share("params")
    return tuple(
        GroupReport(
            group.name,
            group.width,
            int(widths[at]),
            float(flops[at]),
            float(params[at]),
            group.exact,
        )
        for at, group in enumerate(network.coupling.groups)
    )
