"""The staircase of this machine's ONNX Runtime, measured in some seconds."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from prunecli.atomic import atomic_write
from prunecli.cost.staircase import (
    CONV,
    DEPTHWISE,
    ELEMENT,
    GEMM,
    KINDS,
    MEASURED,
    POINTWISE,
    Staircase,
    own_file,
    processor,
)
from prunecli.exporting.onnx.translate import DEFAULT_OPSET
from prunecli.progress import Progress, Step, silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ROUNDS = 25
"""How often every width is timed; the fastest fifth decides: whatever disturbs a run slows it."""

PAIRS = 3
"""A chain widens and narrows so often: the ends of a network are not what is measured."""

SIZES = {CONV: 14, POINTWISE: 28, DEPTHWISE: 28, GEMM: 14, ELEMENT: 28}
"""The side of the image that each kind works on; a matrix has as many rows as that has pixels."""

KERNELS = {CONV: 3, POINTWISE: 1, DEPTHWISE: 3}


def measure_staircase(name: str, *, threads: int, progress: Progress = silent) -> Staircase:
    """Return what every width up to `MEASURED` costs in ONNX Runtime here.

    Each width is timed in a chain of layers between it and `MEASURED` channels: data is laid out
    as inside of a network. All widths of a kind take turns; on one thread its processor time
    counts, which other programs do not lengthen.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    worth, speeds = {}, {}
    for at, kind in enumerate(KINDS):
        progress(Step("staircase", at, len(KINDS)))
        widths = np.arange(1, MEASURED + 1)
        chains = [_chain(kind, width, PAIRS) for width in widths.tolist()]
        *taken, short = _times(
            [_session(chain, threads) for chain in (*chains, _chain(kind, MEASURED, 1))], clock
        )
        # What a chain takes whatever its length: its ends, between which all others have one size.
        ends = max(PAIRS * short - taken[-1], 0.0) / (PAIRS - 1) if kind != DEPTHWISE else 0.0
        inner = np.asarray(taken) - ends
        worth[kind] = (0.0, *(inner / inner[-1] * MEASURED).tolist())
        speeds[kind] = float(inner[-1]) * 1e9 / _work(kind)
    sums = _times([_session(_sums(), threads)], clock)
    speeds[ELEMENT] = float(sums[0]) * 1e9 / (2 * PAIRS * MEASURED * SIZES[ELEMENT] ** 2)
    return Staircase(name, worth, speeds)


def learn_staircase(*, threads: int = 1, progress: Progress = silent) -> Staircase:
    """Measure the staircase of this machine and keep it for later cuts."""
    found = measure_staircase(processor(), threads=threads, progress=progress)
    path = own_file(threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(found.to_json()) + "\n", encoding="utf-8")
    return found


def _work(kind: str) -> int:
    """Return the multiply-adds of a chain at the width `MEASURED`."""
    layers, pixels = 2 * PAIRS, SIZES[kind] ** 2
    taps = KERNELS.get(kind, 1) ** 2
    return layers * pixels * taps * MEASURED * (1 if kind == DEPTHWISE else MEASURED)


def _times(sessions: list[Any], clock: Any) -> NDArray[np.float64]:
    """Return the seconds of sessions that take turns."""
    feeds = [{"x": _values(session.get_inputs()[0].shape)} for session in sessions]
    rounds = []
    for _ in range(ROUNDS + 1):
        row = []
        for session, feed in zip(sessions, feeds, strict=True):
            begin = clock()
            session.run(None, feed)
            row.append(clock() - begin)
        rounds.append(row)
    return np.asarray(np.quantile(rounds[1:], 0.2, axis=0))


def _session(model: Any, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _chain(kind: str, width: int, pairs: int) -> Any:
    """Return layers between `MEASURED` and `width` channels in turns, convolutions with a ReLU."""
    widths = [*([MEASURED, width] * pairs), MEASURED]
    if kind == DEPTHWISE:
        widths = [width] * (2 * pairs + 1)
    nodes, weights, value = [], {}, "x"
    for at, (many, made) in enumerate(pairwise(widths)):
        names = [value, f"w{at}", f"b{at}"]
        if kind == GEMM:
            weights[f"w{at}"] = _values((many, made)) / many**0.5
            nodes.append(helper.make_node("MatMul", names[:2], [f"r{at}"]))
        else:
            side = KERNELS[kind]
            weights[f"b{at}"] = _values((made,))
            own = 1 if kind == DEPTHWISE else many
            weights[f"w{at}"] = _values((made, own, side, side)) / (own * side * side) ** 0.5
            nodes.append(
                helper.make_node(
                    "Conv",
                    names,
                    [f"y{at}"],
                    kernel_shape=[side] * 2,
                    pads=[side // 2] * 4,
                    group=many if kind == DEPTHWISE else 1,
                )
            )
            nodes.append(helper.make_node("Relu", [f"y{at}"], [f"r{at}"]))
        value = f"r{at}"
    side = SIZES[kind]
    shape = [1, side * side, MEASURED] if kind == GEMM else [1, widths[0], side, side]
    return _model(nodes, weights, shape, value)


def _sums() -> Any:
    """Return sums of two values, as at the end of residual blocks."""
    nodes, value = [], "x"
    for at in range(2 * PAIRS):
        nodes.append(helper.make_node("Add", [value, "x"], [f"y{at}"]))
        value = f"y{at}"
    return _model(nodes, {}, [1, MEASURED, SIZES[ELEMENT], SIZES[ELEMENT]], value)


def _model(
    nodes: list[Any], weights: Mapping[str, NDArray[np.float32]], shape: list[int], output: str
) -> Any:
    graph = helper.make_graph(
        nodes,
        "staircase",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = [helper.make_opsetid("", DEFAULT_OPSET)]
    return helper.make_model(
        graph, opset_imports=opset, ir_version=onnx.helper.find_min_ir_version_for(opset)
    )


def _values(shape: Any) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)
