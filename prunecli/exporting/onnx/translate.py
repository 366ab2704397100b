"""A captured program as an ONNX graph, in the lowest set of operators that has all of its own."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch

from prunecli.errors import InputError
from prunecli.exporting.onnx.failures import export_failed
from prunecli.exporting.onnx.tidy import name_ends_, subgraphs, tidy_
from prunecli.graph.tracing.recurrent import steps_not_unrolled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prunecli.exporting.onnx.capture import Captured

# The exporter's own operator set: other numbers are reached by a conversion that may fail, and
# every runtime of the last years reads this one.
DEFAULT_OPSET = 18


@dataclass(frozen=True)
class Translated:
    """An `onnx.ModelProto`, and what there is to say about it."""

    proto: Any
    notes: tuple[str, ...] = ()


def translate(captured: Captured, *, opset: int | None, optimize: bool) -> Translated:
    """Return the ONNX graph of a program, with its outputs and free sizes by name.

    Without an `opset`, that is 18, or the lowest that has all operators. Raises `GraphError`
    (`EXPORT_FAILED`) and `InputError` (`BAD_OPSET`).
    """
    wanted = opset or DEFAULT_OPSET
    proto = _exported(captured, opset=wanted, optimize=optimize)
    notes = []
    if newer := newer_operators(proto, wanted):
        told = ", ".join(f"{name} (opset {since})" for name, since in sorted(newer.items()))
        lowest = max(newer.values())
        if opset is not None:
            raise InputError(
                f"opset {opset} lacks operators of the model: {told}",
                code="BAD_OPSET",
                hint=f"use --opset {lowest}, or none",
            )
        proto = _exported(captured, opset=lowest, optimize=optimize)
        notes = [f"written with opset {lowest}, which the model needs: {told}"]
    tidy_(proto)
    name_ends_(proto.graph, captured.inputs, captured.outputs, captured.sizes)
    return Translated(proto, tuple(notes))


def newer_operators(proto: Any, opset: int) -> dict[str, int]:
    """Return the operators of a model that an opset does not have, with that which brought them."""
    return {
        name: since
        for name in sorted(_operators(proto))
        if (since := _introduced(name)) is not None and since > opset
    }


def _operators(proto: Any) -> set[str]:
    found, waiting = set(), [proto.graph, *proto.functions]
    while waiting:
        for node in waiting.pop().node:
            if node.domain in {"", "ai.onnx"}:
                found.add(str(node.op_type))
            waiting += [inner for one in node.attribute for inner in subgraphs(one)]
    return found


def _introduced(name: str) -> int | None:
    known: Mapping[str, int] = _first_opsets()
    return known.get(name)


def _first_opsets() -> dict[str, int]:
    first: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            since = first.get(schema.name, schema.since_version)
            first[schema.name] = min(since, schema.since_version)
    return first


def _exported(captured: Captured, *, opset: int, optimize: bool) -> Any:
    with _no_chatter(), steps_not_unrolled(), torch.no_grad():
        try:
            program = torch.onnx.export(
                captured.program,
                (),
                dynamo=True,
                verbose=False,
                opset_version=opset,
                optimize=optimize,
                # Names that no weight and no value in between can have.
                input_names=[f"input\n{at}" for at in range(len(captured.inputs))],
                output_names=[f"output\n{at}" for at in range(len(captured.outputs))],
            )
        except Exception as error:
            raise export_failed(error) from error
    assert program is not None
    proto = program.model_proto
    written = written_opset(proto)
    if written != opset:
        raise InputError(
            f"opset {opset} cannot be written: the exporter stayed at {written}",
            code="BAD_OPSET",
            hint=f"use --opset {written}, or none",
        )
    return proto


def written_opset(proto: Any) -> int:
    """Return the version of ONNX's own operators that a model asks for."""
    return next(int(item.version) for item in proto.opset_import if item.domain in {"", "ai.onnx"})


@contextmanager
def _no_chatter() -> Iterator[None]:
    """Keep the exporter's notes off the screen; what goes wrong comes out as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
