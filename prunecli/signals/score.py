"""Compute the saliency of every atom of a coupled network under a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from prunecli.errors import InputError
from prunecli.graph.coupling import STAYS, CouplingGraph
from prunecli.graph.emit import emit
from prunecli.graph.network import build
from prunecli.graph.roles import PRODUCERS
from prunecli.graph.rules.call import operator_name, schema_arguments
from prunecli.progress import Progress, Step, silent
from prunecli.registry import Registry
from prunecli.signals.components import (
    AGGREGATES,
    METRICS,
    REDUCTIONS,
    SCALINGS,
    ScalingFacts,
    Signal,
    parse_signal,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.graph.trace import Trace

Batches = Iterable[tuple[Tensor, Tensor]]
"""Normalised images `[n, channels, height, width]` with their labels `[n]`."""


@dataclass(frozen=True)
class Subject:
    """A traced network with its tensors, as signals see it."""

    signal: str
    trace: Trace
    coupling: CouplingGraph
    tensors: Mapping[str, Tensor]
    weights_removed: NDArray[np.float64]
    batches: Callable[[], Batches] | None
    aggregate: str
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Site:
    """Where a group's channels can be read: `values` is `[atoms found]` for `atoms` `[same]`."""

    atoms: Tensor
    values: Tensor


Scorer = Callable[[Subject], Tensor]
PRESETS: Registry[str | Scorer] = Registry("signal")


def needs_data(signal: str) -> bool:
    """Tell whether a signal looks at images."""
    preset = PRESETS.get(signal) if "/" not in signal else signal
    return isinstance(preset, str) and parse_signal(preset).needs_data


def score(
    signal: str,
    trace: Trace,
    coupling: CouplingGraph,
    tensors: Mapping[str, Tensor],
    *,
    weights_removed: NDArray[np.float64],
    batches: Callable[[], Batches] | None = None,
    aggregate: str = "mean",
    seed: int = 0,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return one saliency per atom, NaN where the signal cannot see an atom.

    `signal` is a preset or `base_input/pointwise_metric/reduction/scaling`; `weights_removed` has
    one entry per atom. Raises `InputError` when the signal needs images and there are none, or when
    a saliency is not finite.
    """
    subject = Subject(
        signal, trace, coupling, tensors, weights_removed, batches, aggregate, seed, progress
    )
    if needs_data(signal) and batches is None:
        raise _no_images(signal)
    preset = PRESETS.get(signal) if "/" not in signal else signal
    with torch.no_grad():
        found = (
            grid_signal(parse_signal(preset), subject)
            if isinstance(preset, str)
            else preset(subject)
        )
    values = found.double().cpu().numpy()
    _check_finite(signal, values[~np.isnan(values)])
    return np.asarray(values, np.float64)


def _no_images(signal: str) -> InputError:
    return InputError(
        f"the signal {signal} looks at images, and none were given",
        code="SIGNAL_NEEDS_DATA",
        hint="add --data DIR, or use a signal of the weights alone (l1, l2, bn-gamma)",
    )


def _check_finite(signal: str, values: NDArray[np.float64]) -> None:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise InputError(
            f"the signal {signal} is not finite for {bad} channels",
            code="BAD_SALIENCY",
            hint="the weights or activations overflow; try another signal",
        )


def grid_signal(signal: Signal, subject: Subject) -> Tensor:
    """Return the saliency of every atom for one point of the taxonomy."""
    if signal.base_input == "weight":
        return combine(subject, _weight_sites(signal, subject))
    return combine(subject, _activation_sites(signal, subject))


def combine(subject: Subject, sites: Iterable[Site]) -> Tensor:
    """Aggregate the sites of every atom by the subject's rule; NaN where there is none."""
    count = subject.coupling.atom_count
    rows = []
    for site in sites:
        # NaN stands for "not at this site" below, so a signal that is NaN must not get there.
        _check_finite(subject.signal, site.values.double().cpu().numpy())
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


def producer_sites(subject: Subject) -> list[tuple[str, int, NDArray[np.int64]]]:
    """Return every weight that makes channels, the dimension on which, and its atoms."""
    wanted = {site for group in subject.coupling.groups for site in group.producers}
    return [(name, dim, subject.coupling.tensors[name][dim]) for name, dim in sorted(wanted)]


def rows_of(subject: Subject, name: str, dim: int) -> Tensor:
    """Return a weight (and its bias) as one row of scalars per channel, in 32 bits or more."""
    tensor = subject.tensors[name].detach()
    rows = tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1)
    rows = rows.float() if rows.element_size() < 4 else rows
    bias = subject.tensors.get(f"{name.removesuffix('weight')}bias")
    if name.endswith("weight") and bias is not None and bias.shape == rows.shape[:1]:
        rows = torch.cat([rows, bias.detach()[:, None]], dim=1)
    return rows


def by_atom(values: Tensor, atoms: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Sum the last dimension over positions of the same atom; return the atoms and the sums."""
    found, inverse = np.unique(atoms, return_inverse=True)
    sums = values.new_zeros((*values.shape[:-1], found.size))
    for row in inverse.reshape(atoms.shape):
        sums.index_add_(-1, torch.as_tensor(row, device=values.device), values)
    alive = torch.as_tensor(found != STAYS)
    return torch.as_tensor(found)[alive], sums[..., alive.to(values.device)]


def _weight_sites(signal: Signal, subject: Subject) -> Iterable[Site]:
    metric = METRICS.get(signal.pointwise_metric)
    reduction = REDUCTIONS.get(signal.reduction)
    for name, dim, atoms in producer_sites(subject):
        rows = rows_of(subject, name, dim)
        inside = reduction.inside(metric.function(rows, rows)).sum(1, dtype=torch.float64)
        found, sums = by_atom(inside, atoms)
        _, elements = by_atom(torch.full_like(inside, rows.shape[1]), atoms)
        yield Site(found, _scaled(signal, subject, found, reduction.outside(sums), elements))


def _scaled(
    signal: Signal, subject: Subject, atoms: Tensor, values: Tensor, elements: Tensor
) -> Tensor:
    removed = torch.as_tensor(subject.weights_removed)[atoms]
    facts = ScalingFacts(elements.double().cpu(), removed.double())
    return SCALINGS.get(signal.scaling)(values.double().cpu(), facts)


# --- activations ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tap:
    """A value that consumers read: the graph node, its channel dimension and its atoms."""

    node: str
    dim: int
    atoms: NDArray[np.int64]


def taps(trace: Trace, coupling: CouplingGraph) -> list[Tap]:
    """Return every activation that a weight reads channels from, once."""
    found: dict[tuple[str, int], Tap] = {}
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in PRODUCERS or "input" not in (arguments := schema_arguments(node)):
            continue
        source = arguments["input"]
        rank = source.meta["val"].dim()
        dim = rank - 1 if operator == "linear" else rank - arguments["weight"].meta["val"].dim() + 1
        atoms = coupling.values.get(source.name, {}).get(dim)
        if atoms is not None:
            found[source.name, dim] = Tap(source.name, dim, atoms)
    return list(found.values())


class _Watcher(fx.Interpreter):
    """Runs a graph and keeps the values of watched nodes."""

    def __init__(self, module: fx.GraphModule, watched: set[str]) -> None:
        super().__init__(module)
        self.watched = watched
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.watched:
            self.values[n.name] = result
        return result


def _activation_sites(signal: Signal, subject: Subject) -> Iterable[Site]:
    assert subject.batches is not None
    watched = taps(subject.trace, subject.coupling)
    metric, reduction = METRICS.get(signal.pointwise_metric), REDUCTIONS.get(signal.reduction)
    everything = np.ones(subject.coupling.atom_count, np.bool_)
    module = build(emit(subject.trace, subject.coupling, everything), subject.tensors)
    sums: list[Tensor | float] = [0.0] * len(watched)
    images = 0
    for inputs, labels in subject.batches():
        values, gradients = _forward(module, watched, inputs, labels, metric.needs_gradient)
        images += len(labels)
        for at, (tap, value, gradient) in enumerate(zip(watched, values, gradients, strict=True)):
            scalars = metric.function(value, gradient).double().movedim(tap.dim, -1)
            positions = tuple(range(1, scalars.dim() - 1))
            inside = reduction.inside(scalars)
            inside = inside.sum(positions) if positions else inside
            sums[at] = sums[at] + reduction.outside(by_atom(inside, tap.atoms)[1]).sum(0)
        subject.progress(Step("scoring", images))
    if not images:
        raise _no_images(subject.signal)
    for tap, value, total in zip(watched, values, sums, strict=True):
        size = value.shape[tap.dim]
        count = torch.full((size,), value[0].numel() / size, dtype=torch.float64)
        atoms, elements = by_atom(count, tap.atoms)
        yield Site(
            atoms, _scaled(signal, subject, atoms, torch.as_tensor(total) / images, elements)
        )


def _forward(
    module: fx.GraphModule,
    watched: list[Tap],
    inputs: Tensor,
    labels: Tensor,
    gradient: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run one batch; the loss is summed, so that every gradient is that of its own image."""
    watcher = _Watcher(module, {tap.node for tap in watched})
    if not gradient:
        watcher.run(inputs)
        values = [watcher.values[tap.node] for tap in watched]
        return values, values
    with torch.enable_grad():
        output = watcher.run(inputs.detach().requires_grad_())
        logits = _first(output)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        values = [watcher.values[tap.node] for tap in watched]
        # What the loss does not depend on (a second output) has a gradient of zero.
        gradients = torch.autograd.grad(loss, values, allow_unused=True, materialize_grads=True)
    return [value.detach() for value in values], list(gradients)


def _first(output: Any) -> Tensor:
    """Return the first tensor of a nested output: the logits."""
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output
