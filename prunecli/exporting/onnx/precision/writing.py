"""An ONNX file in another precision takes its place, with the metadata of the float file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import onnx
from onnxruntime.quantization.onnx_model import ONNXModel

from prunecli.atomic import atomic_write
from prunecli.exporting.onnx.failures import unusable
from prunecli.exporting.onnx.tidy import deduplicate_

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

KEY = "prunecli.precision"


def write_converted(
    proto: Any,
    source: Path,
    target: Path,
    facts: Mapping[str, Any],
    prove: Callable[[Path], None] | None = None,
) -> int:
    """Write a graph to `target` with what `source` says of itself and `facts`; return its bytes.

    `prove` is called with the finished file before it takes its place.
    """
    said = onnx.load(str(source), load_external_data=False)
    deduplicate_(proto.graph)
    ONNXModel(proto).topological_sort()
    del proto.metadata_props[:]
    own = {item.key: item.value for item in said.metadata_props}
    onnx.helper.set_model_props(proto, {**own, KEY: json.dumps(facts, sort_keys=True)})
    proto.producer_name, proto.producer_version = said.producer_name, said.producer_version
    with atomic_write(target) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
        try:
            onnx.checker.check_model(str(temporary), full_check=True)
        except onnx.checker.ValidationError as error:
            raise unusable(error) from error
        if prove is not None:
            prove(temporary)
        return temporary.stat().st_size
