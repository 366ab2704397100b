"""A network made ready for questions: traced, coupled, and costed when somebody asks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from prunecli.cost.kernel_time import KernelTime, kernel_time
from prunecli.cost.kinds import LATENCY
from prunecli.cost.model import CostModel, TableLatency, model_cost
from prunecli.cost.staircase import known_staircase
from prunecli.cutting.equal_widths import Links, equal_widths
from prunecli.cutting.graphs import cut_graph
from prunecli.errors import PruneError
from prunecli.graph.blocks import Block, find_blocks
from prunecli.graph.coupling.groups import (
    ALL_KEPT,
    NOTHING_CUT,
    STAYS,
    CouplingGraph,
    couple,
)
from prunecli.graph.emitting.emit import constant_name, emit
from prunecli.graph.emitting.program import check_layer_names
from prunecli.graph.leaving_out import outermost, without_blocks
from prunecli.graph.tracing.any_size import AnySize, trace_any_size
from prunecli.graph.tracing.folding import fold, folded_tensors, stored_tensors
from prunecli.graph.tracing.in_training import THE_SAME, InTraining, look_at_training
from prunecli.graph.tracing.stale import without_caches
from prunecli.graph.tracing.trace import Example, Trace, by_position, trace
from prunecli.graph.writers import Apart, sum_name, writers_apart, written_name
from prunecli.graph.writes import Part, before_name, parts_of, with_writes
from prunecli.network.checks import check_example, check_network
from prunecli.progress import Clock, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Network:
    """A traced and coupled network: what every question about it starts from."""

    model: nn.Module
    trace: Trace
    coupling: CouplingGraph
    dense_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes that tensors had before earlier cuts, where they are known."""
    latency: TableLatency | None = None
    """Predicts milliseconds, where a table was measured."""
    whole: Network | None = None
    """The network before blocks were deleted, where some are: `model` is still that of the user."""
    deleted: tuple[Block, ...] = ()
    """The blocks that are left out of `trace` and `coupling`."""
    writes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The slots of their stream that writers write, of those that write only some."""
    parts: tuple[Part, ...] = ()
    """What that means for the slots of every stream."""
    training: InTraining = THE_SAME
    """What the forward does in training, which `coupling` follows as well."""
    apart: bool = False
    """Whether `model` is a copy over the caller's tensors, without what earlier calls cached."""

    @cached_property
    def cost(self) -> CostModel:
        """The closed forms of its costs; without deleted blocks, which `dense` still counts."""
        cost = model_cost(self.trace, self.coupling, self.model, without=self.gone)
        cost = replace(cost, latency=self.latency)
        if self.whole is not None:
            left, dense = cost.cost(cost.dense_widths), self.whole.cost.dense
            cost = replace(cost, beside={kind: dense[kind] - left[kind] for kind in left})
        return cost

    @cached_property
    def kernel_time(self) -> KernelTime | None:
        """Its time by the staircase of this machine's kernels, for comparing widths."""
        return kernel_time(self.trace, self.coupling, known_staircase())

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by name, detached; without those of deleted blocks."""
        constants = {constant_name(name): value for name, value in self.trace.constants.items()}
        named = folded_tensors(self.trace, stored_tensors(self.model))
        left = {name: value for name, value in named.items() if name not in self.gone}
        return {**left, **constants}

    @cached_property
    def gone(self) -> frozenset[str]:
        """The tensors that only deleted blocks read."""
        return frozenset(name for block in self.deleted for name in block.tensors)

    @property
    def silenced(self) -> frozenset[str]:
        """The tensors of the dense network whose zeros make deleted blocks vanish."""
        return frozenset(name for block in self.deleted for name in block.zeroed)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks of the whole network that can be deleted."""
        return find_blocks(self.trace) if self.whole is None else self.whole.blocks

    @cached_property
    def untied(self) -> Apart:
        """The whole network with its writers apart: what each makes for a slot, and the slot."""
        whole = self.whole or self
        return writers_apart(whole.trace, whole.coupling, whole.blocks)

    @cached_property
    def linked(self) -> Links:
        """The groups that have one width in the network's own class; none where it is rebuilt."""
        if self.whole is not None or self.trace.folding is not None:
            return ()
        return equal_widths(self.model, (self.trace, self.training.trace), self.coupling)

    @cached_property
    def any_size(self) -> AnySize | None:
        """The trace with batch and image sides free, None where there is none to be written.

        There is none without deleted blocks, which are found in the trace at a fixed size, and
        where sizes take arithmetic that a program does not know.
        """
        found = None if self.whole is not None else trace_any_size(self.model, self.trace)
        try:
            return found if found is None or emit(found.unfolded, NOTHING_CUT, ALL_KEPT) else None
        except PruneError:
            return None

    @property
    def fingerprint(self) -> str:
        """A hash of the user's own network: its operators, their wiring and shapes."""
        return (self.whole or self).coupling.fingerprint

    def without(
        self, blocks: Iterable[Block], writes: Mapping[str, Sequence[int]] | None = None
    ) -> Network:
        """Return the network without these blocks of it; costs are still compared with the whole.

        `writes` names, per writer that stays, the slots of the stream that it still writes
        (ascending); the channels that it makes for the others are `unwritten`. Channels that met
        only in what is gone are tied no more. Raises `InputError` (`BAD_WRITES`).
        """
        whole, chosen = self.whole or self, outermost(blocks)
        parts = parts_of(whole.untied, chosen, writes) if writes else ()
        if not chosen and not parts:
            return whole
        left = with_writes(without_blocks(whole.trace, chosen), parts)
        found = replace(
            whole,
            trace=left,
            coupling=couple(left),
            whole=whole,
            deleted=tuple(chosen),
            writes={name: tuple(slots) for name, slots in (writes or {}).items()},
            parts=parts,
        )
        coupling = _with_silent(found.coupling, found.ended)
        latency = None if whole.latency is None else whole.latency.over(left, coupling)
        return replace(found, coupling=coupling, latency=latency)

    @cached_property
    def unwritten(self) -> NDArray[np.bool_]:
        """One boolean per atom: whether a writer makes its channels for slots that it leaves alone.

        So are those of slots that nobody has written yet. A cut has to let them go.
        """
        found = self.ended
        for part in self.parts:
            made, written = self._made(part.writer.value), self._made(written_name(part.writer))
            if len(part.slots) < part.size:
                found[np.setdiff1d(made, written)] = True
            dims = self.coupling.values.get(sum_name(part.writer), {})
            for atoms in dims[part.writer.dim].T[list(part.gone)] if part.gone and dims else ():
                found[atoms[atoms != STAYS]] = True
        return found

    @property
    def ended(self) -> NDArray[np.bool_]:
        """One boolean per atom: whether it is of slots that are not in a stream until later."""
        found = np.zeros(self.coupling.atom_count, np.bool_)
        nodes = {node.name: node for node in self.trace.graph.nodes}
        for part in self.parts:
            if part.new:
                left = before_name(part.writer)
                (stream, *_) = nodes[left].all_input_nodes
                found[np.setdiff1d(self._made(stream.name), self._made(left))] = True
        return found

    def _made(self, value: str) -> NDArray[np.int64]:
        """Return the atoms of a value of the graph."""
        dims = self.coupling.values.get(value, {}).values()
        found = np.concatenate([np.zeros(0, np.int64), *(atoms.reshape(-1) for atoms in dims)])
        return np.unique(found[found != STAYS])

    @property
    def outputs(self) -> int:
        """The size of the last dimension of the first output: the number of classes."""
        output = next(node for node in self.trace.graph.nodes if node.op == "output")
        return int(output.all_input_nodes[0].meta["val"].shape[-1])

    @property
    def is_classifier(self) -> bool:
        """Whether the first output has the form of class scores, a row for each image."""
        output = next(node for node in self.trace.graph.nodes if node.op == "output")
        return bool(output.all_input_nodes[0].meta["val"].ndim == 2)

    def weights_removed(self) -> NDArray[np.float64]:
        """Return, per atom, the parameters that go when it alone is removed."""
        return self._removed("params")

    def flops_removed(self) -> NDArray[np.float64]:
        """Return, per atom, the FLOPs that go when it alone is removed."""
        return self._removed("flops")

    def latency_removed(self) -> NDArray[np.float64] | None:
        """Return, per atom, the milliseconds of a block of its group over the block's width.

        None where there is no latency table.
        """
        return None if self.latency is None else self._removed(LATENCY)

    def _removed(self, kind: str) -> NDArray[np.float64]:
        per_group = self.cost.gradient(kind, self.cost.dense_widths)
        return np.repeat(per_group, [group.width for group in self.coupling.groups])

    def graph_network(
        self, keep: NDArray[np.bool_], *, any_size: bool = False, of_module: bool = False
    ) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Return the re-emitted network that keeps these atoms, and its program.

        It takes images of the size of the example; with `any_size`, of every size that the forward
        takes, where there is such a trace. With `of_module`, it is what the network's own module
        must be after the cut: attention takes its temperature from the width that is left, and the
        factors of the plan make up for that.
        """
        check_layer_names(self.trace.tensors.values())
        network, program = self._cut_graph(keep, any_size=any_size, of_module=of_module)
        held = {name for name, value in self.model.named_parameters() if not value.requires_grad}
        for name, value in network.named_parameters():
            value.requires_grad_(value.requires_grad and name not in held)
        return network, program

    def _cut_graph(
        self, keep: NDArray[np.bool_], *, any_size: bool, of_module: bool
    ) -> tuple[fx.GraphModule, dict[str, Any]]:
        if any_size and self.any_size is not None:
            traced, coupling = self.any_size.trace, self.any_size_coupling
            with suppress(PruneError):  # sizes may take arithmetic that a program does not know
                return cut_graph(traced, coupling, keep, self.tensors, of_module=of_module)
        return cut_graph(self.trace, self.coupling, keep, self.tensors, of_module=of_module)

    @cached_property
    def any_size_coupling(self) -> CouplingGraph:
        """The coupling, by the names of the nodes of `any_size`."""
        assert self.any_size is not None
        named = self.any_size.values.items()
        values = {
            name: self.coupling.values[own] for name, own in named if own in self.coupling.values
        }
        return replace(self.coupling, values=values)


def _with_silent(coupling: CouplingGraph, ended: NDArray[np.bool_]) -> CouplingGraph:
    groups = (replace(each, silent=bool(ended[each.atoms].any())) for each in coupling.groups)
    return replace(coupling, groups=tuple(groups))


def _coupled(traced: Trace, training: InTraining) -> tuple[CouplingGraph, InTraining]:
    """Couple evaluation with training; alone where training would leave nothing to be cut."""
    coupling = couple(traced, training.trace)
    if training.trace is None or coupling.groups:
        return coupling, training
    reason = "what the forward does in training would freeze every channel"
    return couple(traced), InTraining(differs=True, failure=reason)


def read_network(model: nn.Module, example: Example, *, clock: Clock | None = None) -> Network:
    """Trace and couple a network; raises what `trace` raises, and `InputError` for bad weights."""
    clock = clock or Clock(silent)
    check_network(model)
    check_example(example)
    with clock.stage("trace"):
        given = by_position(model, example)
        own, model = model, without_caches(model, given)
        traced = fold(trace(model, given), stored_tensors(model))
        training = look_at_training(model, traced)
    with clock.stage("couple"):
        coupling, training = _coupled(traced, training)
    return Network(model, traced, coupling, training=training, apart=model is not own)
