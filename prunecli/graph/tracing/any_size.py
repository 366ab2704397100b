"""The trace of a network with the batch and the image sides free, and what it asks of them.

Coupling and costs take the trace at the size of the example, where every side is a number. What a
network is at other sizes is in this one: sizes are expressions, and what the forward asked of them
(at least 29 pixels, a multiple of 7) became guards.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx, nn

from prunecli.graph.operators import concrete
from prunecli.graph.tracing.folding import fold, stored_tensors
from prunecli.graph.tracing.record import tensors_in
from prunecli.graph.tracing.running import evaluating
from prunecli.graph.tracing.torch_export import export_any_size, quiet
from prunecli.graph.tracing.trace import Trace, exported_trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

BATCH = "batch"


@dataclass(frozen=True)
class Side:
    """A free size of the inputs: its (tensor, dim) places, what people call it, and its bounds.

    Several places share a size where the forward needs them equal. `high` is None where there is
    no upper bound.
    """

    places: tuple[tuple[int, int], ...]
    name: str
    low: int
    high: int | None

    @property
    def is_batch(self) -> bool:
        """Whether it is the first dimension of its inputs."""
        return not self.places[0][1]


@dataclass(frozen=True)
class Asked:
    """A question of the forward about its sizes: what holds of them, as text and as a relation."""

    text: str
    relation: Any
    symbols: tuple[tuple[Any, Side], ...]

    def holds(self, sizes: Mapping[tuple[int, int], int]) -> bool:
        """Tell whether it holds of sizes by (tensor, dim) of the inputs."""
        import sympy  # type: ignore[import-untyped]

        values = {symbol: sizes[side.places[0]] for symbol, side in self.symbols}
        return bool(self.relation.subs(values) == sympy.true)


@dataclass(frozen=True)
class AnySize:
    """A trace with free sizes; `values` maps its nodes to those of the trace at a fixed size.

    `asked` holds what else than bounds the forward asks of its sizes.
    """

    trace: Trace
    values: Mapping[str, str]
    free: tuple[Side, ...]
    asked: tuple[Asked, ...]
    unfolded: Trace
    """The trace as the module itself computes its weights."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The free image sides."""
        return tuple(side for side in self.free if not side.is_batch)


def trace_any_size(model: nn.Module, fixed: Trace) -> AnySize | None:
    """Trace a network again with its sizes free, to the nodes of its trace at a fixed size.

    None where no such trace can be had, or where it does something else at the example's size.
    """
    if fixed.recorded:
        return None
    with evaluating(model), quiet():
        found = export_any_size(model, fixed.example)
        if found is None:
            return None
        unfolded = exported_trace(model, *found)
    program, _ = found
    symbols, asked = free_sides(program)
    free = tuple(symbols.values())
    folds = fixed.folding is not None
    traced = fold(unfolded, stored_tensors(model)) if folds else unfolded
    values = _aligned(traced, fixed)
    return None if values is None else AnySize(traced, values, free, asked, unfolded)


def _aligned(free: Trace, fixed: Trace) -> dict[str, str] | None:
    """Pair the nodes that hold tensors, if both traces do the same at the example's size."""
    pairs = list(zip(_tensor_nodes(free), _tensor_nodes(fixed), strict=False))
    lengths = [sum(1 for _ in _tensor_nodes(trace)) for trace in (free, fixed)]
    same = lengths[0] == lengths[1] and all(
        a.target == b.target or (a.op == b.op == "placeholder" and a.name == b.name)
        for a, b in pairs
    )
    if not same or any(_shapes(a, free) != _shapes(b, fixed) for a, b in pairs):
        return None
    return {a.name: b.name for a, b in pairs}


def _tensor_nodes(trace: Trace) -> Iterator[fx.Node]:
    return (node for node in trace.graph.nodes if tensors_in(node.meta.get("val")))


def _shapes(node: fx.Node, trace: Trace) -> list[tuple[int, ...]]:
    return [
        tuple(concrete(size, trace.batch) for size in value.shape)
        for value in tensors_in(node.meta["val"])
    ]


# --- what the forward asks of its sizes ----------------------------------------------------------


def free_sides(program: Any) -> tuple[dict[Any, Side], tuple[Asked, ...]]:
    """Return the free dimensions of a program by symbol, and what else is asked of them."""
    graph, taken = program.graph_module.graph, program.graph_signature.user_inputs
    by_name = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    given = [by_name[name].meta.get("val") for name in taken if name in by_name]
    symbols: dict[Any, Side] = {}
    environment: Any = None
    for at, value in enumerate(one for one in given if isinstance(one, Tensor)):
        sizes: Iterable[Any] = value.shape
        for dim, size in enumerate(sizes):
            if isinstance(size, int) or not size.node.expr.is_symbol:
                continue
            environment = size.node.shape_env
            known = symbols.get(size.node.expr)
            if known is not None:
                places = (*known.places, (at, dim))
                symbols[size.node.expr] = dataclasses.replace(known, places=places)
                continue
            bounds: Any = program.range_constraints.get(size.node.expr)
            low, high = (bounds.lower, bounds.upper) if bounds else (None, None)
            name = _side_name(dim, value.dim(), at if len(given) > 1 else None)
            side = Side(((at, dim),), name, _integer(low) or 1, _integer(high))
            symbols[size.node.expr] = side
    guards = [] if environment is None else [guard.expr for guard in environment.guards]
    asked = {one.text: one for guard in guards for one in _asked(guard, symbols)}
    return symbols, tuple(asked.values())


def _integer(bound: Any) -> int | None:
    return int(bound) if getattr(bound, "is_Integer", False) else None


def _side_name(dim: int, rank: int, tensor: int | None) -> str:
    sides = {4: ("height", "width"), 5: ("depth", "height", "width")}.get(rank, ())
    name = BATCH if dim == 0 else (sides[dim - 2] if 0 <= dim - 2 < len(sides) else f"size {dim}")
    return name if tensor is None else f"{name} of input {tensor}"


def _asked(guard: Any, symbols: Mapping[Any, Side]) -> Iterator[Asked]:
    """Yield what a guard asks, unless bounds say it, or it is about layouts in memory."""
    import sympy

    relation = sympy.sympify(guard)
    involved = tuple((symbol, symbols[symbol]) for symbol in relation.free_symbols & set(symbols))
    if not involved or not _is_question(relation, len(involved)):
        return
    if isinstance(relation, sympy.Eq) and relation.lhs.is_symbol and relation.rhs.is_symbol:
        return  # sizes that have to be equal have become one
    names = {symbol: sympy.Symbol(side.name.replace(" ", "_")) for symbol, side in involved}
    text = str(relation.subs(names)).replace("_", " ")
    divided = re.fullmatch(r"Eq\((?:Python)?Mod\(([a-z 0-9]+), (\d+)\), 0\)", text)
    yield Asked(
        f"{divided[1]} is a multiple of {divided[2]}" if divided else text, relation, involved
    )


def _is_question(relation: Any, sizes: int) -> bool:
    """Tell whether a guard may come from the forward.

    Torch itself asks whether sizes vanish, are one, or whether two dimensions are the same one.
    """
    import sympy

    if "Mod" in str(relation) or isinstance(relation, sympy.Eq):
        return True
    if isinstance(relation, sympy.Ne):
        return bool(relation.lhs.is_symbol and relation.rhs.is_Integer and relation.rhs > 1)
    return sizes > 1
