"""Run the rules of the operators over traced graphs: which ids each dimension carries."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from prunecli.graph.coupling.ids import Axis, IdSpace
from prunecli.graph.operators import (
    concrete,
    is_pointwise,
    operator_name,
    read_nodes,
    said,
    schema_arguments,
    source_line,
)
from prunecli.graph.rules import RULES, Annotation, Call
from prunecli.graph.rules.call import no_axes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prunecli.graph.tracing.trace import Trace

NOTHING_APART: dict[str, int] = {}

_POSITIONS = frozenset({"arange", "linspace", "meshgrid"})
"""What a detector makes its anchors from: as many positions as the image has, none a channel."""


def propagate(
    trace: Trace, training: Trace | None = None, *, apart: Mapping[str, int] = NOTHING_APART
) -> tuple[dict[str, Annotation], IdSpace, dict[str, int]]:
    """Run the op rules over the graph; return each node's axes, the ids, and what was not followed.

    The latter says why, and how often: no rule knows an operator, or its rule fails on a call.
    `training` is the graph of training over the same tensors: what either ties is tied. `apart`
    names nodes, each with a dimension in which it has channels of its own.
    """
    ids = IdSpace()
    known: dict[str, Annotation] = {}
    unfollowed: Counter[str] = Counter()
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
                known[node.name], reason = _follow(node, known, ids, one)
                if node.name in apart:
                    known[node.name] = _apart(known[node.name], apart[node.name], ids)
                if reason:
                    unfollowed[reason] += 1
    return known, ids, dict(unfollowed)


def _apart(annotation: Annotation, dim: int, ids: IdSpace) -> Annotation:
    """Return axes with channels of their own along a dimension, whatever they were made from."""
    assert isinstance(annotation, tuple)
    axis = annotation[dim]
    fresh = None if axis is None else ids.fresh(axis.size)
    ids.mark_made(fresh)
    return (*annotation[:dim], fresh, *annotation[dim + 1 :])


def _placeholder(node: fx.Node, trace: Trace, ids: IdSpace) -> Annotation:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    if node.name in trace.tensors or node.name in trace.constants:
        return tuple(ids.fresh(int(size)) for size in value.shape)
    return (None,) * value.dim()


def _follow(
    node: fx.Node, known: Mapping[str, Annotation], ids: IdSpace, trace: Trace
) -> tuple[Annotation, str]:
    """Return the axes of a node; with the reason where what it reads had to be frozen instead.

    Rules take calls for what they usually are. Whatever one raises, and axes that do not fit the
    tensors of the call, mean that it does not understand this one.
    """
    operator = operator_name(node.target)
    try:
        return _fitting(_apply(node, operator, known, ids, trace), node, trace), ""
    except _NoRule:
        reason = f"no rule for operator {operator}"
    except Exception as error:  # noqa: BLE001 - a rule may be anybody's, and fail in any way
        reason = f"the rule for operator {operator} does not understand this call ({said(error)})"
    touched = [axis for value in read_nodes(node) for axis in _flat(known.get(value.name))]
    for axis in touched:
        ids.freeze(axis, reason)
    return no_axes(node), reason if any(axis is not None for axis in touched) else ""


class _NoRule(Exception):  # noqa: N818 - caught where it is raised
    """Nothing says what an operator does with channels."""


def _apply(
    node: fx.Node, operator: str, known: Mapping[str, Annotation], ids: IdSpace, trace: Trace
) -> Annotation:
    call = Call(node, operator, schema_arguments(node), known, ids, trace.batch, trace.integers)
    if not call.tensors() and operator != "getitem":
        return _made_axes(node, ids, _POSITIONS if trace.recorded else frozenset())
    if operator in RULES:
        return RULES.get(operator)(call)
    if is_pointwise(node.target):
        return RULES.get("alias")(call)
    if not _holds_tensors(node.meta.get("val")):
        return None  # a size or a check: emission computes it anew
    raise _NoRule


def _fitting(axes: Annotation, node: fx.Node, trace: Trace) -> Annotation:
    """Return the axes of a value; raise `ValueError` for what does not have its shape."""
    value: Any = node.meta.get("val")
    if not _holds_tensors(value):
        return None
    several = isinstance(value, list | tuple)
    if axes is None or isinstance(axes, list) != several:
        raise ValueError("it is taken for one with other outputs")
    for own, tensor in zip(axes, value, strict=True) if several else [(axes, value)]:
        if own is None or not isinstance(tensor, Tensor):
            continue
        sizes = [concrete(size, trace.batch) for size in tensor.shape]
        found = [size if axis is None else axis.size for axis, size in zip(own, sizes, strict=True)]
        if found != sizes:
            raise ValueError(f"channels of {found} for a tensor of {sizes}")
    return axes


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and bool(value))


def _made_axes(node: fx.Node, ids: IdSpace, left_out: frozenset[str]) -> Annotation:
    """Give what is made from no tensor (a table of positions) ids of its own: it can be cut."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or operator_name(node.target) in left_out:
        return no_axes(node)
    return tuple(ids.fresh(size) if isinstance(size, int) else None for size in value.shape)


def _flat(annotation: Annotation) -> Iterable[Axis]:
    if isinstance(annotation, list):
        return (axis for axes in annotation for axis in axes or ())
    return annotation or ()
