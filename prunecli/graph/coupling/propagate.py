"""Run the rules of the operators over traced graphs: which ids each dimension carries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from prunecli.graph.coupling.ids import Axis, IdSpace
from prunecli.graph.operators import is_pointwise, operator_name, schema_arguments, source_line
from prunecli.graph.rules import RULES, Annotation, Call
from prunecli.graph.rules.call import no_axes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prunecli.graph.tracing.trace import Trace

_POSITIONS = frozenset({"arange", "linspace", "meshgrid"})
"""What a detector makes its anchors from: as many positions as the image has, none a channel."""


def propagate(
    trace: Trace, training: Trace | None = None
) -> tuple[dict[str, Annotation], IdSpace, dict[str, int]]:
    """Run the op rules over the graph; return each node's axes, the ids, and unknown operators.

    `training` is the graph of training over the same tensors: what either ties is tied.
    """
    ids = IdSpace()
    known: dict[str, Annotation] = {}
    unknown: dict[str, int] = {}
    owned: dict[str, Annotation] = {}
    traces = [(trace, "output of the model")]
    if training is not None:
        traces.append((training, "output of the model in training"))
    for one, stays in traces:
        for node in one.graph.nodes:
            ids.node, ids.where = node.name, source_line(node)
            if node.op == "placeholder":
                # A tied weight has several placeholders, which are one tensor.
                name = one.tensors.get(node.name, node.name)
                known[node.name] = owned.get(name) or _placeholder(node, one, ids)
                owned[name] = known[node.name]
            elif node.op == "output":
                for value in node.all_input_nodes:
                    for axis in _flat(known.get(value.name)):
                        ids.freeze(axis, stays)
            else:
                known[node.name] = _apply(node, known, ids, one, unknown)
    return known, ids, unknown


def _placeholder(node: fx.Node, trace: Trace, ids: IdSpace) -> Annotation:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    if node.name in trace.tensors or node.name in trace.constants:
        return tuple(ids.fresh(int(size)) for size in value.shape)
    return (None,) * value.dim()


def _apply(
    node: fx.Node,
    known: Mapping[str, Annotation],
    ids: IdSpace,
    trace: Trace,
    unknown: dict[str, int],
) -> Annotation:
    operator = operator_name(node.target)
    call = Call(node, operator, schema_arguments(node), known, ids, trace.batch, trace.integers)
    if not call.tensors() and operator != "getitem":
        return _made_axes(node, ids, _POSITIONS if trace.recorded else frozenset())
    if operator == "pad" or operator in RULES:
        return RULES.get(operator)(call)
    if is_pointwise(node.target):
        return RULES.get("alias")(call)
    if not _holds_tensors(node.meta.get("val")):
        return None  # a size or a check: emission computes it anew
    touched = [axis for value in node.all_input_nodes for axis in _flat(known.get(value.name))]
    if any(axis is not None for axis in touched):
        unknown[operator] = unknown.get(operator, 0) + 1
    for axis in touched:
        ids.freeze(axis, f"no rule for operator {operator}")
    return no_axes(node)


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and bool(value))


def _made_axes(node: fx.Node, ids: IdSpace, left_out: frozenset[str]) -> Annotation:
    """Give what is made from no tensor (a table of positions) ids of its own: it can be cut."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or operator_name(node.target) in left_out:
        return no_axes(node)
    return tuple(ids.fresh(size) if isinstance(size, int) else None for size in value.shape)


def _flat(annotation: Annotation) -> Iterable[Axis]:
    if annotation is None:
        return ()
    if isinstance(annotation, list):
        return (axis for axes in annotation for axis in axes)
    return annotation
