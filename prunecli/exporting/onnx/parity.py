"""The proof that an ONNX file computes what its torch source computes, output by output."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from prunecli.architectures.argument import shape_text
from prunecli.architectures.examples import called, named_for
from prunecli.errors import GraphError, ProofError, first_line
from prunecli.evaluation.relative import largest_difference, relative_errors
from prunecli.exporting.onnx.runtime import fixed_batch, open_session, random_feeds, run
from prunecli.exporting.onnx.sizes import BATCH, other_sizes
from prunecli.graph.outputs import named_leaves
from prunecli.graph.tracing.running import evaluating
from prunecli.report import OutputParity, Parity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from prunecli.architectures.inputs import InputSpec

    Feeds = Mapping[str, NDArray[Any]]

_LAST_DIGIT = {"float16": float(np.finfo(np.float16).eps)}
_TRIALS = 16
"""Changed inputs on which torch is run to see which integers are on an edge."""


def check_parity(
    model: nn.Module,
    path: Path,
    *,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    inputs: int = 8,
    tolerance: float = 1e-4,
    seed: int = 0,
    threads: int | None = None,
) -> Parity:
    """Compare ONNX Runtime on the CPU with torch on `inputs` random inputs and more.

    The error of an output for one input is `max|onnx - torch| / max|torch|`; the report holds the
    largest. Integers and booleans have to be equal, but for those on an edge. One input runs as a
    batch of one and the others as one batch, so that the dynamic batch is proven as well; where the
    file leaves image sides free, one batch has another size. Raises `ProofError` (`PARITY_FAILED`)
    above `tolerance`, or when an output is not finite, and names the outputs; `GraphError`
    (`SIZE_FIXED`) where the forward takes no other size.
    """
    session, spec = open_session(path, threads=threads), named_for(input, model)
    trials = list(_trials(session, model, spec, inputs=inputs, seed=seed))
    found = [_compared(session, model, spec, feeds, tolerance) for feeds in trials]
    outputs = [_worst(parts) for parts in zip(*found, strict=True)]
    failed = [one.failure for one in outputs if one.failure]
    if failed:
        raise ProofError(
            f"ONNX Runtime and torch differ: {'; '.join(failed)}",
            code="PARITY_FAILED",
            where=str(path),
            hint="nothing was written; try another --opset, or report the model",
        )
    return Parity(
        max_rel_error=max(one.parity.max_rel_error for one in outputs),
        inputs=sum(_count(spec, feeds) for feeds in trials),
        outputs=tuple(one.parity for one in outputs),
        notes=_notes([one.parity for one in outputs]),
    )


def _notes(outputs: Sequence[OutputParity]) -> tuple[str, ...]:
    rows = [one.name for one in outputs if any("found_" in str(size) for size in one.shape)]
    ties = [f"{one.ties} of {one.name}" for one in outputs if one.ties]
    told = []
    if rows:
        told.append(f"the number of rows of {', '.join(rows)} depends on the values of an input")
    if ties:
        told.append(
            f"integers on an edge came out otherwise than in torch, where they change with the "
            f"last digits of an input too: {', '.join(ties)}"
        )
    return tuple(told)


# --- what both are run on ------------------------------------------------------------------------


def _trials(
    session: Any, model: nn.Module, spec: InputSpec, *, inputs: int, seed: int
) -> Iterator[Feeds]:
    only = fixed_batch(session)
    if only is None:
        whole = random_feeds(session, spec, batch=inputs, seed=seed)
        yield _rows(whole, spec, slice(0, 1))
        if inputs > 1:
            yield _rows(whole, spec, slice(1, None))
    else:
        for at in range(max(1, inputs // only)):
            yield random_feeds(session, spec, batch=only, seed=seed + at)
    if sides := _free_sides(session):
        yield _other_size(session, model, spec, sides, batch=only or 2, seed=seed)


def _rows(feeds: Feeds, spec: InputSpec, rows: slice) -> Feeds:
    named = zip(feeds.items(), spec.tensors, strict=True)
    return {name: values[rows] if one.batched else values for (name, values), one in named}


def _count(spec: InputSpec, feeds: Feeds) -> int:
    pairs = zip(feeds.values(), spec.tensors, strict=True)
    return next((len(values) for values, one in pairs if one.batched), 1)


def _free_sides(session: Any) -> dict[tuple[int, int], str]:
    """Return the names of the free sizes by (tensor, dim), without the batch."""
    return {
        (at, dim): size
        for at, value in enumerate(session.get_inputs())
        for dim, size in enumerate(value.shape)
        if isinstance(size, str) and size != BATCH
    }


def _other_size(
    session: Any,
    model: nn.Module,
    spec: InputSpec,
    sides: Mapping[tuple[int, int], str],
    *,
    batch: int,
    seed: int,
) -> Feeds:
    """Return inputs of another size that the forward takes."""
    for other in other_sizes(spec, sides):
        feeds = random_feeds(session, other, batch=batch, seed=seed)
        try:
            run_torch(model, spec, feeds)
        except Exception:  # noqa: BLE001, S112 - not every size need be one that the forward takes
            continue
        return feeds
    raise GraphError(
        "the sides of images are free in the trace, but the forward takes none of the sizes that "
        "were tried",
        code="SIZE_FIXED",
        where=type(model).__name__,
        hint="leave --dynamic-size out",
    )


def run_torch(model: nn.Module, spec: InputSpec, feeds: Feeds) -> dict[str, Tensor]:
    """Return the model's outputs by name, in eval mode on its own device, on the CPU."""
    place = device_of(model)
    tensors = [torch.from_numpy(values).to(place) for values in feeds.values()]
    with evaluating(model), torch.no_grad():
        leaves = named_leaves(called(model, spec, tensors))
    return {name: leaf.detach().cpu() for name, leaf in leaves.items() if isinstance(leaf, Tensor)}


# --- how they compare ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compared:
    """One output; `failure` says what is wrong with it."""

    parity: OutputParity
    failure: str = ""


def _worst(parts: Sequence[_Compared]) -> _Compared:
    """Return one output over all batches."""
    worst = dataclasses.replace(
        parts[0].parity,
        max_rel_error=max(part.parity.max_rel_error for part in parts),
        max_abs_error=max(part.parity.max_abs_error for part in parts),
        ties=sum(part.parity.ties for part in parts),
    )
    return _Compared(worst, next((part.failure for part in parts if part.failure), ""))


def _compared(
    session: Any, model: nn.Module, spec: InputSpec, feeds: Feeds, tolerance: float
) -> list[_Compared]:
    expected = run_torch(model, spec, feeds)
    try:
        actual = run(session, feeds)
    except Exception as error:
        shapes = ", ".join(f"{name} {shape_text(value.shape)}" for name, value in feeds.items())
        raise ProofError(
            f"torch runs inputs of another size and the exported file does not ({shapes}): "
            f"{first_line(error)[:300]}",
            code="PARITY_FAILED",
            hint="nothing was written; this is a fault of the exporter: try another --opset, or "
            "without --dynamic-size",
        ) from error
    edges = _Edges(model, spec, feeds, tolerance)
    return [
        _one(output, actual[output.name], value, at, edges)
        for at, (output, value) in enumerate(
            zip(session.get_outputs(), expected.values(), strict=True)
        )
    ]


def _one(output: Any, actual: NDArray[Any], expected: Tensor, at: int, edges: _Edges) -> _Compared:
    wanted = _array(expected)
    kinds = [f"{one.dtype} {list(one.shape)}" for one in (actual, wanted)]
    parity = OutputParity(output.name, tuple(output.shape), str(actual.dtype), 0.0, 0.0)
    if actual.shape != wanted.shape or actual.dtype != wanted.dtype:
        bad = dataclasses.replace(parity, max_rel_error=np.inf, max_abs_error=np.inf)
        return _Compared(bad, f"{output.name} is {kinds[0]}, not {kinds[1]}")
    if not np.issubdtype(actual.dtype, np.inexact):
        differ = actual != wanted
        ties = int((differ & edges.reach(at, actual)).sum()) if differ.any() else 0
        parity = dataclasses.replace(parity, ties=ties)
        if ties == differ.sum():
            return _Compared(parity)
        bad = dataclasses.replace(parity, max_rel_error=np.inf, max_abs_error=np.inf)
        told = f"{int(differ.sum()) - ties} of {differ.size} values of {output.name} are not equal"
        return _Compared(bad, told)
    axis = list(output.shape).index(BATCH) if BATCH in output.shape else None
    rows, due = (_by_input(value, axis) for value in (actual, wanted))
    error = float(relative_errors(rows, due).max(initial=0.0))
    apart = float(largest_difference(rows, due).max(initial=0.0))
    parity = dataclasses.replace(parity, max_rel_error=error, max_abs_error=apart)
    # Of 16 bits the last digit is larger than what is allowed otherwise.
    allowed = max(edges.tolerance, _LAST_DIGIT.get(actual.dtype.name, 0.0))
    if error <= allowed:
        return _Compared(parity)
    told = f"relative error {error:.2e} of {output.name}, allowed {allowed:.0e}"
    return _Compared(parity, told)


def _array(value: Tensor) -> NDArray[Any]:
    return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).numpy())


def _by_input(values: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Return values as [inputs, rest]; as one row where they belong to no input."""
    if axis is None:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


@dataclass(frozen=True)
class _Edges:
    """Tells integers that changes of the inputs below the tolerance bring about in torch, too."""

    model: nn.Module
    spec: InputSpec
    feeds: Feeds
    tolerance: float

    def reach(self, at: int, actual: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which values of output number `at` torch gives for some changed inputs."""
        generator = np.random.default_rng(0)
        found = np.zeros(actual.shape, np.bool_)
        for _ in range(_TRIALS):
            changed = {
                name: values + generator.standard_normal(values.shape).astype(values.dtype)
                * np.asarray(self.tolerance, values.dtype)
                if np.issubdtype(values.dtype, np.inexact)
                else values
                for name, values in self.feeds.items()
            }  # fmt: skip
            value = _array(list(run_torch(self.model, self.spec, changed).values())[at])
            if value.shape == actual.shape:
                found |= value == actual
        return found


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first tensor; the CPU for a model without any."""
    return next((tensor.device for tensor in _tensors(model)), torch.device("cpu"))


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the model's first floating-point tensor; float32 without any."""
    floats = (tensor.dtype for tensor in _tensors(model) if tensor.is_floating_point())
    return next(floats, torch.float32)


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()
