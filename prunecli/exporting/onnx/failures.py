"""Why a network cannot be exported to ONNX, as an error that names operator, node and line."""

from __future__ import annotations

import re

from prunecli.errors import GraphError

_OPERATOR = re.compile(r"OpOverload\(op='([^']+)', overload='([^']+)'\)")
_NODE = re.compile(r"translating node %(\w+)")
_LINE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')


def export_failed(error: BaseException) -> GraphError:
    """Return the error of a network that torch's exporter gives up on."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    text = "\n".join(str(item) for item in chain)
    reason = next((line for line in str(chain[-1]).splitlines() if line.strip()), "no reason given")
    operator = _OPERATOR.search(text)
    node = _NODE.search(text)
    line = _LINE.findall(text)
    places = [
        f"operator {operator[1]}.{operator[2]}" if operator else "",
        f"node {node[1]}" if node else "",
        "{}:{} in {}".format(*line[-1]) if line else "",
    ]
    return GraphError(
        f"the model cannot be exported to ONNX: {type(chain[-1]).__name__}: {reason}",
        code="EXPORT_FAILED",
        where=", ".join(place for place in places if place) or None,
        hint="replace this operation in the forward, or try another --opset",
    )


def unusable(reason: object) -> GraphError:
    """Return the error of a file that ONNX or its runtime refuses."""
    return GraphError(
        f"the exported file cannot be used: {reason}",
        code="EXPORT_FAILED",
        hint="nothing was written; try another --opset, or report the model",
    )
