"""Milliseconds of single operators in ONNX Runtime, over a grid of widths."""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunecli.cost.latency import Grid
from prunecli.cost.latency.table import monotone
from prunecli.errors import DeviceError
from prunecli.exporting.onnx.runtime import CPU_PROVIDER, HEAVY_OPERATORS, open_session
from prunecli.exporting.onnx.translate import DEFAULT_OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prunecli.cost.latency import OperatorShape

LEAST_ROUNDS, MOST_ROUNDS = 4, 200

HELD = 1 << 25
"""Scalars of the weights and inputs of operators that are measured in turn."""

Pair = tuple[int, int]
"""Inputs and outputs of an operator."""


def measure_grid(
    shape: OperatorShape,
    inputs: Sequence[int],
    outputs: Sequence[int],
    *,
    steps: tuple[int, int],
    batch: int,
    threads: int,
    seconds: float,
) -> Grid:
    """Return the operator's times at every pair of widths, the least of several rounds each.

    Every round runs all widths once, in turn, so that what slows the machine down for a moment
    slows none of them down in all rounds. The kernel alone is timed, by ONNX Runtime's own
    profile: inside a network nobody rearranges the data before and after each convolution.
    """
    pairs = [(many, made) for many in inputs for made in outputs]
    found: list[float] = []
    for part in _parts(shape, pairs, batch):
        share = seconds * len(part) / len(pairs)
        found += _times(shape, part, batch=batch, threads=threads, seconds=share)
    rows = [found[at : at + len(outputs)] for at in range(0, len(found), len(outputs))]
    return Grid(tuple(inputs), tuple(outputs), steps, monotone(rows))


def _parts(shape: OperatorShape, pairs: Sequence[Pair], batch: int) -> Iterator[list[Pair]]:
    """Yield widths that are measured in turn, few enough for the memory that they take."""
    part: list[Pair] = []
    held = 0
    for pair in pairs:
        own = math.prod(_weight_shape(shape, *pair)) + math.prod(_input_shape(shape, pair, batch))
        if part and held + own > HELD:
            yield part
            part, held = [], 0
        part.append(pair)
        held += own
    yield part


def _times(
    shape: OperatorShape, pairs: Sequence[Pair], *, batch: int, threads: int, seconds: float
) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for at, pair in enumerate(pairs):
            path = Path(folder) / f"{at}.onnx"
            path.write_bytes(_proto(shape, *pair).SerializeToString())
            prefix = str(path.with_suffix(""))
            session = open_session(path, provider=CPU_PROVIDER, threads=threads, profile=prefix)
            sessions.append(session)
            path.unlink()
        feeds = [{"x": _values(_input_shape(shape, pair, batch))} for pair in pairs]
        begin, rounds = time.perf_counter(), 0
        while rounds < LEAST_ROUNDS or (
            rounds < MOST_ROUNDS and time.perf_counter() - begin < seconds
        ):
            for session, feed in zip(sessions, feeds, strict=True):
                session.run(None, feed)
            rounds += 1
        return [_least(session.end_profiling(), shape) for session in sessions]


def least_times(profile: str) -> dict[tuple[str, str], float]:
    """Return the milliseconds of the fastest run of every node, `{(node, operator): time}`.

    A run that is shorter than a tick of the profiler's clock counts as one.
    """
    found: dict[tuple[str, str], float] = {}
    for event in json.loads(Path(profile).read_text(encoding="utf-8")):
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        key = (name, str(event["args"].get("op_name")))
        found[key] = min(found.get(key, math.inf), max(float(event["dur"]), 1.0) / 1000)
    return found


def _least(profile: str, shape: OperatorShape) -> float:
    """Return the milliseconds of the one heavy node in a profile."""
    times = least_times(profile).items()
    found = [least for (_, operator), least in times if operator in HEAVY_OPERATORS]
    if not found:
        raise DeviceError(
            "ONNX Runtime's profile has no time for an operator",
            code="NO_PROFILE",
            where=shape.key,
            hint="report this with the version of onnxruntime (prunecli env)",
        )
    return sum(found)


def _input_shape(shape: OperatorShape, pair: tuple[int, int], batch: int) -> tuple[int, ...]:
    inputs = pair[0] if shape.groups else _own_groups(shape, pair)
    return (batch * shape.rows, inputs, *shape.size)


def _own_groups(shape: OperatorShape, pair: tuple[int, int]) -> int:
    """Return the groups of a depthwise convolution with so many outputs."""
    return max(1, pair[1] // shape.multiplier)


def _weight_shape(shape: OperatorShape, inputs: int, outputs: int) -> tuple[int, ...]:
    groups = shape.groups or _own_groups(shape, (inputs, outputs))
    channels = inputs if shape.groups else groups
    if shape.kind == "ConvTranspose":
        return (channels, outputs // groups, *shape.kernel)
    return (outputs, channels // groups, *shape.kernel)


def _proto(shape: OperatorShape, inputs: int, outputs: int) -> Any:
    """Return a network of this one operator, with a bias as folded batch norms leave one."""
    sizes = _weight_shape(shape, inputs, outputs)
    weight = _values(sizes) / math.prod(sizes[1:]) ** 0.5
    attributes: dict[str, Any] = {"transB": 1}
    if shape.kind != "Gemm":
        attributes = {
            "kernel_shape": shape.kernel,
            "strides": shape.stride,
            "pads": shape.pads,
            "dilations": shape.dilation,
            "group": shape.groups or _own_groups(shape, (inputs, outputs)),
            **({"output_padding": shape.more} if shape.more else {}),
        }
    source = _input_shape(shape, (inputs, outputs), 1)
    node = helper.make_node(shape.kind, ["x", "weight", "bias"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "operator",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", *source[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(_values((outputs,)), "bias"),
        ],
    )
    opset = [helper.make_opsetid("", DEFAULT_OPSET)]
    return helper.make_model(
        graph, opset_imports=opset, ir_version=onnx.helper.find_min_ir_version_for(opset)
    )


def _values(shape: Sequence[int]) -> Any:
    return np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)
