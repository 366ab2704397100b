"""The oracle: how the loss changes when each channel alone is removed, and how signals agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.cost.sizes import tensor_bytes
from prunecli.evaluation.outputs import image_losses
from prunecli.graph.emitting.emit import emit
from prunecli.graph.emitting.program import build, traced_name
from prunecli.progress import Progress, Step, silent
from prunecli.signals.places import Tap, read_taps, samples_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.evaluation.batches import BatchSource
    from prunecli.graph.coupling.groups import ChannelGroup, CouplingGraph
    from prunecli.graph.tracing.trace import Trace

MEMORY = 1 << 28
"""Bytes that the copies of the largest activation may take together."""


def loss_changes(
    trace: Trace,
    coupling: CouplingGraph,
    tensors: Mapping[str, Tensor],
    batches: BatchSource,
    *,
    constants: Mapping[tuple[str, int], Tensor] | None = None,
    memory: int = MEMORY,
    progress: Progress = silent,
) -> NDArray[np.float64]:
    """Return, per atom, the change of the mean loss when it alone is removed.

    A removed channel reads as zero wherever it is read, in the dense network, or as what
    `constants` holds of that value and dimension (`[positions]`); several are tried at once, each
    in a copy of the batch. Layers before the first that reads a group are run once.
    """
    everything = np.ones(coupling.atom_count, np.bool_)
    module = build(emit(trace, coupling, everything), tensors)
    taps = read_taps(trace, coupling)
    samples = {node.name: _samples(node, trace.batch) for node in trace.graph.nodes}
    totals = np.zeros(coupling.atom_count)
    images = 0
    with torch.no_grad():
        for inputs, labels in batches():
            run = _Copies(module, samples, inputs, labels, memory=memory, constants=constants or {})
            images += len(labels)
            for group in coupling.groups:
                totals[group.atoms] += run.changes(group, _of_group(taps, group))
                done = images * coupling.atom_count
                progress(Step("oracle", done, None, {"channels": float(coupling.atom_count)}))
    return totals / max(images, 1)


def _samples(node: fx.Node, batch: Any) -> int | None:
    return samples_of(node, batch) if isinstance(node.meta.get("val"), Tensor) else None


def _of_group(taps: Sequence[Tap], group: ChannelGroup) -> list[Tap]:
    atoms = range(group.first, group.first + group.width)
    return [tap for tap in taps if np.isin(tap.atoms, atoms).any()]


class _Copies(fx.Interpreter):
    """Runs the rest of a network on copies of one batch, each with one channel read as constant."""

    def __init__(
        self,
        module: fx.GraphModule,
        samples: Mapping[str, int | None],
        inputs: Tensor,
        labels: Tensor,
        *,
        memory: int,
        constants: Mapping[tuple[str, int], Tensor],
    ) -> None:
        super().__init__(module)
        self.constants = constants
        self.samples, self.labels, self.memory = samples, labels, memory
        self.order = list(module.graph.nodes)
        self.place = {node.name: at for at, node in enumerate(self.order)}
        clean = fx.Interpreter(module, garbage_collect_values=False)
        output = clean.run(inputs)
        self.values = clean.env
        self.loss = float(image_losses(output, labels).double().sum())

    def changes(self, group: ChannelGroup, taps: Sequence[Tap]) -> NDArray[np.float64]:
        """Return the change of the summed loss for every atom of a group."""
        if not taps:
            return np.full(group.width, np.nan)
        first = min(self.place[tap.node] for tap in taps)
        later = (
            value
            for node, value in self.values.items()
            if isinstance(value, Tensor) and self.place[node.name] >= first
        )
        largest = max((tensor_bytes([value]) for value in later), default=1)
        count = int(min(max(self.memory // max(largest, 1), 1), group.width))
        if any(tap.samples is None for tap in taps) or self._fixed_batch():
            count = 1
        found = []
        for start in range(group.first, group.first + group.width, count):
            atoms = np.arange(start, min(start + count, group.first + group.width))
            found.append(self._losses(atoms, taps, first) - self.loss)
        return np.concatenate(found)

    def _fixed_batch(self) -> bool:
        return all(size is None for size in self.samples.values())

    def _losses(
        self, atoms: NDArray[np.int64], taps: Sequence[Tap], first: int
    ) -> NDArray[np.float64]:
        """Return the summed loss of every copy, the copy `k` without atom `k`."""
        copies = len(atoms)
        masked: dict[str, list[Tap]] = {}
        for tap in taps:
            masked.setdefault(tap.node, []).append(tap)
        rest = self.order[first + 1 :]
        self.env = {
            node: self._copied(node, copies)
            for node in dict.fromkeys(source for node in rest for source in node.all_input_nodes)
            if self.place[node.name] <= first
        }
        start = self.order[first]
        self.env[start] = self._without(self.env[start], masked[start.name], atoms)
        for node in rest:
            value = self.run_node(node)
            self.env[node] = self._without(value, masked.get(node.name, ()), atoms)
            for used in self.user_to_last_uses.get(node, ()):
                self.env.pop(used, None)
            if node.op == "output":
                losses = image_losses(value, self.labels.repeat(copies))
                return losses.double().reshape(copies, -1).sum(1).cpu().numpy()
        raise AssertionError("a graph ends with its output")

    def _copied(self, node: fx.Node, copies: int) -> Any:
        """Return a value of the clean run for all copies of the batch, one behind another."""
        value = self.values[node]
        if not isinstance(value, Tensor):
            return self._size(node, copies) if copies > 1 else value
        along = self.samples.get(traced_name(node))
        return value if along is None or copies == 1 else torch.cat([value] * copies, along)

    def _size(self, node: fx.Node, copies: int) -> Any:
        """Work out a size (or a list of values) anew for more images."""
        before = {source: self._copied(source, copies) for source in node.all_input_nodes}
        kept, self.env = self.env, before
        try:
            return self.run_node(node)
        finally:
            self.env = kept

    def _without(self, value: Any, taps: Sequence[Tap], atoms: NDArray[np.int64]) -> Any:
        """Make the channels that go with atom `k` constant in copy `k` of a value."""
        for tap in taps:
            goes = (tap.atoms[None] == atoms[:, None, None]).any(1)  # [copies, positions]
            mask = torch.as_tensor(~goes, device=value.device)
            shape = [1] * value.dim()
            shape[tap.dim] = mask.shape[1]
            constant = self.constants.get((tap.node, tap.dim))
            if constant is not None:
                constant = constant.to(value).reshape(shape)
            if tap.samples is None or len(atoms) == 1:
                mask = mask[0]
            else:
                each = value.shape[tap.samples] // len(atoms)
                mask = mask.repeat_interleave(each, 0)
                shape[tap.samples] = len(mask)
                mask = mask if tap.samples < tap.dim else mask.T
            mask = mask.reshape(shape)
            value = value * mask if constant is None else torch.where(mask, value, constant)
        return value


# --- how signals agree with it -------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """Spearman's rank correlation of a signal with the oracle; None where it is not defined.

    `per_layer` is the mean over groups, `pooled` over all channels together, `pooled_l2` the same
    after every group's saliencies are divided by their L2 norm (Molchanov et al. 2017).
    """

    per_layer: float | None
    pooled: float | None
    pooled_l2: float | None


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return the correlation of ranks, ties with their mean rank; None where all are equal.

    >>> spearman(np.array([.1, .5, .3, .9, .2]), np.array([1., 4., 5., 6., 0.]))
    0.8
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (first, second)]
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return round(float(ranks[0] @ ranks[1]) / scale, 12) if scale else None


def agreement(
    groups: Sequence[ChannelGroup], saliency: NDArray[np.float64], oracle: NDArray[np.float64]
) -> Agreement:
    """Compare a signal with the oracle, over the channels that both can see."""
    layers, scaled, truth = [], [], []
    for group in groups:
        seen = ~(np.isnan(saliency[group.atoms]) | np.isnan(oracle[group.atoms]))
        own, true = saliency[group.atoms][seen], oracle[group.atoms][seen]
        layers.append((own, true))
        scaled.append(own / (np.linalg.norm(own) or 1.0))
        truth.append(true)
    found = [spearman(own, true) for own, true in layers if len(own) > 1]
    known = [value for value in found if value is not None]
    if not known:
        return Agreement(None, None, None)
    true = np.concatenate(truth)
    return Agreement(
        per_layer=float(np.mean(known)),
        pooled=spearman(np.concatenate([own for own, _ in layers]), true),
        pooled_l2=spearman(np.concatenate(scaled), true),
    )
