"""Ask `torch.export` for the graph of a network, and say why there is none."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import logging
import sys
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from prunecli.graph.outputs import without_own_classes
from prunecli.graph.tracing.record import attributes_kept, tensors_in
from prunecli.graph.tracing.recurrent import steps_not_unrolled
from prunecli.graph.tracing.shapes import norms_keep_shapes, without_summaries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch.fx.experimental.symbolic_shapes import ShapeEnv

ASKS_FOR_VALUES = frozenset(
    {
        "DataDependentOutputException",
        "DynamicOutputShapeException",
        "GuardOnDataDependentSymNode",
        "PendingUnbackedSymbolNotFound",
        "_ManyValuesError",
    }
)
"""Failures of an export that no other batch size can cure."""


def export_any_size(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]] | None:
    """Return the program exported with batch and image sides free, and its arguments.

    None where the forward cannot be followed so: its sizes become too long to reason about (windows
    that are padded and shifted), or it asks for values.
    """
    example = tuple(_at_least_two(value) for value in given)
    free = pytree.tree_map(_free_sizes, _by_name(model, example))
    try:
        with torch.no_grad(), _exporting(model), short_sizes():
            program = torch.export.export(model, example, dynamic_shapes=free, strict=False)
    except Exception:  # noqa: BLE001 - whatever the forward or the exporter raises: no such trace
        return None
    known = not has_unknown_sizes(program.graph_module.graph)
    return (program, example) if known else None


def export_fixed(model: nn.Module, given: tuple[Any, ...]) -> Any:
    """Return the program exported for arguments of exactly these sizes; raises what export does."""
    with torch.no_grad(), _exporting(model):
        return torch.export.export(model, given, strict=False)


def export(
    model: nn.Module, given: tuple[Any, ...], *, gradients: bool = False
) -> tuple[Any, tuple[Any, ...], str]:
    """Return the exported program, the arguments that it was exported for, and "".

    Where there is none, return None, the arguments as given, and the reason. Tried in turn: a free
    batch, a batch of two, the example as it is. Arguments that hold tensors (a list of images) say
    nothing of their batch, and are taken as they are. With `gradients` the forward runs as it does
    where gradients are asked for.
    """
    double = tuple(_at_least_two(value) for value in given)
    reason = ""
    for example, shapes in ((double, _free_batch), (double, None), (given, None)):
        free = shapes and pytree.tree_map(shapes, _by_name(model, example))
        try:
            # Without gradients, a `no_grad` inside the forward leaves no mark in the graph.
            with torch.set_grad_enabled(gradients), _exporting(model):
                program = torch.export.export(model, example, dynamic_shapes=free, strict=False)
            if shapes and not counts_one_input(program.graph_module.graph):
                reason = "its sizes are whole numbers for some batches only"
                continue
            if not has_unknown_sizes(program.graph_module.graph):
                return program, example, ""
            reason = "its sizes depend on the values of tensors"
            break
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            reason = first_line(error)
            if type(error).__name__ in ASKS_FOR_VALUES:
                break
    return None, given, reason


@contextlib.contextmanager
def _exporting(model: nn.Module) -> Iterator[None]:
    """Let an export see what the network does by itself, and leave nothing behind in it."""
    with (
        attributes_kept(model),
        without_own_classes(model),
        nothing_hidden(),
        norms_keep_shapes(),
        without_summaries(),
        _as_it_runs(),
        _few_values(),
        steps_not_unrolled(),
    ):
        yield


def _free_batch(value: Any) -> Any:
    return {0: torch.export.Dim.AUTO} if isinstance(value, Tensor) and value.dim() else None


def _free_sizes(value: Any) -> Any:
    """Free the batch and, of images and volumes, their sides."""
    if not isinstance(value, Tensor) or not value.dim():
        return None
    sides = range(2, value.dim()) if value.dim() > 3 else ()
    return dict.fromkeys((0, *sides), torch.export.Dim.AUTO)


def _at_least_two(value: Any) -> Any:
    # A batch of one would be specialised away, and with it the free batch dimension.
    if isinstance(value, Tensor) and value.dim() and value.shape[0] == 1:
        return torch.cat([value, value])
    return value


def _by_name(model: nn.Module, example: tuple[Any, ...]) -> Any:
    """Return arguments by the names of the forward, `*arguments` as one of them: as export asks."""
    try:
        return dict(inspect.signature(model.forward).bind(*example).arguments)
    except (TypeError, ValueError):
        return example


def counts_one_input(graph: fx.Graph, sizes: Mapping[Any, int] | None = None) -> bool:
    """Tell whether every size is a whole number, and none vanishes, for a batch of one.

    `sizes` are the values of symbols that are no batch.
    """
    return all(
        _whole_for_one(size, sizes or {})
        for node in graph.nodes
        for value in tensors_in(node.meta.get("val"))
        for size in value.shape
    )


def _whole_for_one(size: Any, sizes: Mapping[Any, int]) -> bool:
    if isinstance(size, int):
        return True
    expression = size.node.expr
    one = expression.subs({symbol: sizes.get(symbol, 1) for symbol in expression.free_symbols})
    return bool(one.is_integer) and (int(one) > 0 or size.node.hint == 0)


def has_unknown_sizes(graph: fx.Graph) -> bool:
    """Tell whether a size depends on the values of tensors, such as the number of boxes found."""
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return any(
        bool(free_unbacked_symbols(size))
        for node in graph.nodes
        for value in tensors_in(node.meta.get("val"))
        for size in value.shape
    )


class _ManyValuesError(Exception):
    """A forward asks for the values of many tensors."""


@contextlib.contextmanager
def _few_values(limit: int = 16) -> Iterator[None]:
    """Give an export up once it depends on more than `limit` values: it fails, but only later.

    A loop over 90 classes, each with a number of boxes of its own, keeps the exporter busy for ten
    seconds with sizes that it cannot know.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    known = ShapeEnv.create_unbacked_symint
    count = 0

    def counted(self: ShapeEnv, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > limit:
            raise _ManyValuesError(f"its sizes depend on the values of more than {limit} tensors")
        return known(self, *args, **kwargs)

    ShapeEnv.create_unbacked_symint = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        ShapeEnv.create_unbacked_symint = known  # type: ignore[method-assign]


class _LongSizeError(Exception):
    """A size has become an expression that no exporter gets done with."""


@functools.lru_cache(maxsize=4096)
def _steps(expression: Any) -> int:
    """Return how many steps of arithmetic a size takes."""
    return int(getattr(expression, "count_ops", int)())


@contextlib.contextmanager
def short_sizes(limit: int = 150) -> Iterator[None]:
    """Give an export up once a size takes more than `limit` steps of arithmetic.

    Convolutions and pools of 160 layers make 43; shifted windows 600 and more, in minutes.
    """
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    known = ShapeEnv.evaluate_expr

    def bounded(self: ShapeEnv, expression: Any, *args: Any, **kwargs: Any) -> Any:
        if _steps(expression) > limit:
            raise _LongSizeError(f"a size takes more than {limit} steps of arithmetic")
        return known(self, expression, *args, **kwargs)

    ShapeEnv.evaluate_expr = bounded  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ShapeEnv.evaluate_expr = known  # type: ignore[method-assign]


@contextlib.contextmanager
def nothing_hidden() -> Iterator[None]:
    """Keep blocks under `autocast` out of an export: each would be one opaque operator.

    The graph is that of the full precision; the network's own module keeps its casts.
    """
    known = torch.autocast.__enter__, torch.autocast.__exit__

    def entered(self: Any) -> Any:
        return self

    def left(*_: Any) -> None:
        return None

    torch.autocast.__enter__, torch.autocast.__exit__ = entered, left  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.autocast.__enter__, torch.autocast.__exit__ = known  # type: ignore[method-assign]


@contextlib.contextmanager
def _as_it_runs() -> Iterator[None]:
    """Tell a forward that asks that nobody exports it; torch itself is told the truth.

    A forward may do for an exporter what it never does by itself (make a mask of positions that
    masks nothing), and then the graph is not that of the network. Whether it is compiled is another
    question, by which forwards keep sizes without a value out of their caches.
    """
    known = torch.compiler.is_exporting

    def answer() -> bool:
        asker = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001
        return known() if asker.partition(".")[0] == "torch" else False

    torch.compiler.is_exporting = answer
    try:
        yield
    finally:
        torch.compiler.is_exporting = known


def first_line(error: Exception) -> str:
    """Return the first line of a message, shortened: those of the exporter fill a page."""
    line = next(iter(str(error).strip().splitlines()), "") or repr(error)
    return textwrap.shorten(line, 160, placeholder=" ...")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's own chatter off the user's screen; errors still raise."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.export", "torch._export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
