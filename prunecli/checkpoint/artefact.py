"""What a checkpoint is: an architecture reference, tensors, provenance; never a pickled class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.checkpoint.digest import KEY, digest
from prunecli.checkpoint.headers import is_tensor
from prunecli.errors import LoadRefusedError
from prunecli.plan import PruningPlan

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "prunecli"
FORMAT_VERSION = 1
SPARSE_VERSION = 2
"""The format of files whose weights are partly zero and stored without the zeros."""

INPUTS_VERSION = 3
"""The format of files of networks that take something else than one batch of images."""

_VERSIONS = (FORMAT_VERSION, SPARSE_VERSION, INPUTS_VERSION)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network at rest.

    `tensors` is the state dict on the CPU. `plan` says how it was cut from the dense architecture;
    `graph` is the JSON form of a re-emitted graph and is there only when `architecture.name` is
    `graph`. `metadata` is JSON data: command, seed, versions, sha256 of the inputs, accuracy.
    `masks` are boolean and say, by tensor, which weights are kept; the others are zero.
    """

    architecture: ArchitectureRef
    tensors: Mapping[str, Tensor]
    input: InputSpec
    plan: PruningPlan | None = None
    graph: Mapping[str, Any] | None = None
    classes: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read, what there is to say about it, and the sha256 of its file."""

    checkpoint: Checkpoint
    warnings: tuple[str, ...]
    sha256: str


def header_to_json(
    checkpoint: Checkpoint, *, sparse: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return everything but the tensors as plain JSON data; `sparse` describes packed ones."""
    return {
        "format": FORMAT,
        "format_version": _version(checkpoint, sparse),
        **({} if sparse is None else {"sparse": dict(sparse)}),
        "architecture": checkpoint.architecture.to_json(),
        "input": checkpoint.input.to_json(),
        "plan": None if checkpoint.plan is None else checkpoint.plan.to_json(),
        "graph": checkpoint.graph,
        "classes": None if checkpoint.classes is None else list(checkpoint.classes),
        "metadata": dict(checkpoint.metadata),
    }


def _version(checkpoint: Checkpoint, sparse: object) -> int:
    """Return the oldest format that holds all of a checkpoint, so that older versions read it."""
    if not checkpoint.input.is_images:
        return INPUTS_VERSION
    return FORMAT_VERSION if sparse is None else SPARSE_VERSION


def checkpoint_from_header(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], *, where: str
) -> Checkpoint:
    """Put a checkpoint together again; raise `LoadRefusedError` when the header is not ours."""
    from prunecli.checkpoint.compact import unpack  # it needs torch

    check_header(header, tensors, where=where)
    if header.get(KEY) is not None:  # not there in the files of older versions
        check_digest(header, digest(header, tensors), where=where)
    tensors, masks = unpack(tensors, sparse_description(header), where=where)
    return described(header, tensors, masks, where=where)


def check_header(header: Mapping[str, Any], tensors: Mapping[str, Any], *, where: str) -> None:
    """Raise `LoadRefusedError` for what is no artefact of a version that can be read."""
    if not isinstance(header, Mapping) or not _are_tensors(tensors):
        raise _damaged("it is not a set of named tensors with a description", where)
    version = header.get("format_version")
    if version not in _VERSIONS:
        raise LoadRefusedError(
            f"this artefact has format {version}, and this version reads "
            f"{', '.join(map(str, _VERSIONS))}",
            code="FORMAT_VERSION",
            where=where,
            hint="use the prunecli version that wrote it",
        )


def check_digest(header: Mapping[str, Any], found: str, *, where: str) -> None:
    """Raise `LoadRefusedError` where an artefact does not hold what was once written."""
    if header.get(KEY) != found:
        raise LoadRefusedError(
            "the file does not hold what was once written: something in it has changed",
            code="CORRUPT_FILE",
            where=where,
            hint="take another copy, or write it again",
        )


def sparse_description(header: Mapping[str, Any]) -> Any:
    """Return how the tensors of an artefact are packed; None where all are stored as they are."""
    return header.get("sparse") if header.get("format_version") != FORMAT_VERSION else None


def described(
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    *,
    where: str,
) -> Checkpoint:
    """Return what a header says, with its tensors; raise `LoadRefusedError` for nonsense."""
    try:
        classes = header["classes"]
        plan = header["plan"]
        graph = header["graph"]
        return Checkpoint(
            architecture=ArchitectureRef.from_json(header["architecture"]),
            tensors=tensors,
            input=InputSpec.from_json(header["input"]),
            plan=None if plan is None else PruningPlan.from_json(plan),
            graph=None if graph is None else dict(graph),
            classes=None if classes is None else tuple(str(name) for name in classes),
            metadata=dict(header["metadata"]),
            masks=masks,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(repr(error), where) from error


def _are_tensors(tensors: object) -> bool:
    return isinstance(tensors, Mapping) and all(
        isinstance(name, str) and is_tensor(tensor) for name, tensor in tensors.items()
    )


def _damaged(reason: str, where: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the description in this artefact is damaged: {reason}",
        code="CORRUPT_FILE",
        where=where,
        hint="write it again, or take another copy",
    )
