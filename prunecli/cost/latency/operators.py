"""The costly operators of a traced network, by what their time depends on beside their widths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.cost.alignment import default_alignment
from prunecli.graph.operators import (
    CONVOLUTIONS,
    LINEAR,
    TRANSPOSED_CONVOLUTIONS,
    operator_name,
    schema_arguments,
    shape_of,
)
from prunecli.graph.tracing.record import AGAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.cost.flops import Dim
    from prunecli.graph.coupling.groups import CouplingGraph
    from prunecli.graph.tracing.trace import Trace

SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
"""The shares of an operator's width at which it is measured."""


@dataclass(frozen=True)
class OperatorShape:
    """An operator but for its widths: `pads` holds the begins, then the ends, as ONNX has them.

    `size` is the input's height and width for one image; `rows` how many images, windows or tokens
    one image makes. `groups` is 0 where every input is a group of its own, which makes
    `multiplier` outputs.
    """

    kind: str
    rows: int
    size: tuple[int, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    more: tuple[int, ...] = ()
    multiplier: int = 1

    @property
    def key(self) -> str:
        """The name of the shape in a table."""
        if self.kind == "Gemm":
            return f"Gemm rows {self.rows}"
        parts = {"kernel": self.kernel, "stride": self.stride, "pads": self.pads,
                 "dilation": self.dilation, "more": self.more, "input": self.size}  # fmt: skip
        said = " ".join(f"{name} {_by(values)}" for name, values in parts.items() if values)
        groups = self.groups or f"of {self.multiplier}"
        return f"{self.kind} {said} groups {groups} rows {self.rows}"


@dataclass(frozen=True)
class Operator:
    """An operator of a network: its shape, its dense widths, and where these are in the graph.

    `inputs` and `outputs` are the widths at which it has to be known.
    """

    node: str
    shape: OperatorShape
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[int, int]
    dims: tuple[Dim, Dim]


def operators_of(trace: Trace, coupling: CouplingGraph) -> tuple[Operator, ...]:
    """Return the convolutions and linear layers of a network; products of activations are not."""
    found = []
    for node in trace.graph.nodes:
        name = operator_name(node.target) if node.op == "call_function" else ""
        if name not in ONNX_KINDS or AGAIN in node.meta:
            continue
        arguments = schema_arguments(node)
        source = arguments["input"]
        shape = _shape(name, arguments, trace.batch)
        spatial = len(shape.kernel)
        dims = tuple(
            (value.name, len(shape_of(value, trace.batch)) - spatial - 1)
            for value in (source, node)
        )
        widths = [
            shape_of(value, trace.batch)[dim]
            for value, (_, dim) in zip((source, node), dims, strict=True)
        ]
        steps = tuple(math.lcm(default_alignment(width), shape.groups or 1) for width in widths)
        moving = [dim in coupling.values.get(value, {}) for value, dim in dims]
        knots = [_knots(*each) for each in zip(widths, steps, moving, strict=True)]
        if not shape.groups:
            knots[0] = (widths[0],)  # the inputs are the outputs
        found.append(
            Operator(
                node.name,
                shape,
                knots[0],
                knots[1],
                (steps[0], steps[1]),
                (dims[0], dims[1]),
            )
        )
    return tuple(found)


def _shape(name: str, arguments: dict[str, Any], batch: Any) -> OperatorShape:
    sizes = shape_of(arguments["input"], batch)
    if name == "linear":
        return OperatorShape("Gemm", math.prod(sizes[:-1]))
    weight = shape_of(arguments["weight"], batch)
    kernel = weight[2:]
    inputs = sizes[-len(kernel) - 1]
    dilation = _each(arguments["dilation"], kernel)
    groups = arguments["groups"]
    depthwise = groups == inputs > 1
    made = weight[1] * groups if name in TRANSPOSED_CONVOLUTIONS else weight[0]
    return OperatorShape(
        ONNX_KINDS[name],
        math.prod(sizes[: -len(kernel) - 1]),
        sizes[-len(kernel) :],
        kernel,
        _each(arguments["stride"], kernel),
        _pads(arguments["padding"], kernel, dilation),
        dilation,
        0 if depthwise else groups,
        _each(arguments["output_padding"], kernel) if "output_padding" in arguments else (),
        made // inputs if depthwise else 1,
    )


ONNX_KINDS = {
    **dict.fromkeys(CONVOLUTIONS, "Conv"),
    **dict.fromkeys(TRANSPOSED_CONVOLUTIONS, "ConvTranspose"),
    **dict.fromkeys(LINEAR, "Gemm"),
}
"""Operators that are measured alone, and what they are called in ONNX."""


def _each(values: Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
    return tuple(values) * len(kernel) if len(values) == 1 else tuple(values)


def _pads(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    if padding == "valid":
        return (0,) * (2 * len(kernel))
    if padding == "same":
        whole = [apart * (size - 1) for size, apart in zip(kernel, dilation, strict=True)]
        return (*(pad // 2 for pad in whole), *(pad - pad // 2 for pad in whole))
    return _each(padding, kernel) * 2


def _knots(width: int, step: int, moving: bool) -> tuple[int, ...]:
    """Return the widths to measure: multiples of `step`, and the full one."""
    if not moving:
        return (width,)
    some = {math.ceil(width * share / step) * step for share in SHARES}
    return (*sorted(knot for knot in some if knot < width), width)


def _by(values: Sequence[int]) -> str:
    return "x".join(map(str, values))
