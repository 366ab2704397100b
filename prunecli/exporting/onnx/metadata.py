"""What an ONNX file says about itself: how pixels become its input, its classes, its provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from prunecli.architectures.reference import InputSpec
from prunecli.errors import InputError, LoadRefusedError
from prunecli.files import check_plain, is_inside, reading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

METADATA_SCHEMA = 1
_PREFIX = "prunecli."
_REASON_LENGTH = 300  # a runtime's message can hold its own source paths and a stack
_RESERVED = ("schema", "input", "classes")


@dataclass(frozen=True)
class OnnxMetadata:
    """What `read_metadata` finds; `input` and `classes` are None in a file of another tool.

    Images become the network's input as `(pixels / 255 - input.mean) / input.std`, as float
    `[batch, C, H, W]`.
    """

    input: InputSpec | None
    classes: tuple[str, ...] | None
    provenance: Mapping[str, str] = field(default_factory=dict)


def encode_metadata(
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    *,
    classes: tuple[str, ...] | None,
    provenance: Mapping[str, str],
) -> dict[str, str]:
    """Return the file's `metadata_props`, every key under `prunecli.`, sorted."""
    taken = sorted(set(provenance) & set(_RESERVED))
    if taken:
        raise ValueError(f"metadata keys {taken} are written by the export itself")
    pixels = {"formula": "(pixels / 255 - mean) / std"} if input.mean else {}
    own: dict[str, str] = {
        "schema": str(METADATA_SCHEMA),
        "input": json.dumps({**input.to_json(), **pixels}),
    }
    if classes is not None:
        own["classes"] = json.dumps(list(classes), ensure_ascii=False)
    merged = {**provenance, **own}
    return {f"{_PREFIX}{key}": merged[key] for key in sorted(merged)}


def read_metadata(path: Path) -> OnnxMetadata:
    """Return what the file at `path` says about itself.

    Raises `InputError` (`FILE_NOT_FOUND`), and `LoadRefusedError` (`EMPTY_FILE`, `CORRUPT_FILE`)
    for a file that is not ONNX.
    """
    properties = {item.key: item.value for item in read_model(path).metadata_props}
    return decode_metadata(properties, where=str(path))


def external_files(model: Any, path: Path) -> set[Path]:
    """Return the files beside an ONNX file that hold weights of it."""
    places = (
        entry.value
        for tensor in _external(model.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    )
    return {path.parent / place for place in places}


def decode_metadata(properties: Mapping[str, str], *, where: str) -> OnnxMetadata:
    """Return the typed form of `metadata_props`; `where` names the file in an error."""
    own = {
        key.removeprefix(_PREFIX): value
        for key, value in properties.items()
        if key.startswith(_PREFIX)
    }
    try:
        return OnnxMetadata(
            input=InputSpec.from_json(json.loads(own["input"])) if "input" in own else None,
            classes=tuple(json.loads(own["classes"])) if "classes" in own else None,
            provenance={key: value for key, value in own.items() if key not in _RESERVED},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LoadRefusedError(
            f"the metadata cannot be read: {error!r}",
            code="CORRUPT_FILE",
            where=where,
            hint="export the model again",
        ) from error


def require_file(path: Path) -> None:
    """Raise unless `path` is a file that holds something."""
    if not path.exists() or path.is_dir():
        raise InputError(
            "there is no such file" if not path.exists() else "this is a folder, not a file",
            code="FILE_NOT_FOUND",
            where=str(path),
            hint="give the path of an .onnx file",
        )
    if check_plain(path) == 0:
        raise LoadRefusedError(
            "the file is empty", code="EMPTY_FILE", where=str(path), hint="export it again"
        )


def corrupt_file(path: Path, reason: object) -> LoadRefusedError:
    """Return the error for a file that is not a readable ONNX model."""
    first = next(iter(str(reason).splitlines()), "")
    return LoadRefusedError(
        f"this is not a readable ONNX model: {first[:_REASON_LENGTH]}",
        code="CORRUPT_FILE",
        where=str(path),
        hint="export it again with `prunecli export MODEL --onnx FILE`",
    )


def read_model(path: Path) -> Any:
    """Return the `onnx.ModelProto` in a file, weights beside it unread; see `read_metadata`."""
    require_file(path)
    with reading(path, corrupt_file):
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    if not model.HasField("graph"):  # a few random bytes can be a valid, empty message
        raise corrupt_file(path, "it holds no graph")
    for tensor in _external(model.graph):
        _check_external(tensor, path)
    return model


def _external(graph: Any) -> Iterator[Any]:
    """Yield the tensors of a graph, and of graphs inside it, whose data lies beside the file."""
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        attributes = [attribute for node in current.node for attribute in node.attribute]
        tensors = [*current.initializer]
        for attribute in attributes:
            tensors += [attribute.t, *attribute.tensors]
            waiting += [attribute.g] if attribute.HasField("g") else []
            waiting += attribute.graphs
        yield from (tensor for tensor in tensors if tensor.external_data)


def _check_external(tensor: Any, path: Path) -> None:
    """Raise `LoadRefusedError` for data that is not a part of a plain file beside the model."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    place = path.parent / said.get("location", "")
    if not is_inside(str(place), str(path.parent)):
        raise corrupt_file(path, f"its weights are said to be at {place}, outside of its folder")
    with reading(path, corrupt_file):
        size = check_plain(place)
        offset = int(said.get("offset", 0))
        length = int(said.get("length", size - offset))
    if not 0 <= offset <= offset + length <= size:
        raise corrupt_file(path, f"{place.name} has {size:,} bytes, not {offset + length:,}")
