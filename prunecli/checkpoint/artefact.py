"""What a checkpoint is: an architecture reference, tensors, provenance; never a pickled class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from prunecli.checkpoint.compact import unpack
from prunecli.errors import LoadRefusedError
from prunecli.plan import PruningPlan

FORMAT = "prunecli"
FORMAT_VERSION = 1
SPARSE_VERSION = 2
"""The format of files whose weights are partly zero and stored without the zeros."""

GRAPH = "graph"


@dataclass(frozen=True)
class InputSpec:
    """What a network expects of an image: its shape, and per channel `(x / 255 - mean) / std`."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return `(channels, height, width)`."""
        return (self.channels, self.height, self.width)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data.

        >>> InputSpec.from_json(InputSpec(1, 8, 8, (0.5,), (0.25,)).to_json()).shape
        (1, 8, 8)
        """
        return {
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """Read what `to_json` wrote."""
        return cls(
            channels=int(data["channels"]),
            height=int(data["height"]),
            width=int(data["width"]),
            mean=tuple(float(value) for value in data["mean"]),
            std=tuple(float(value) for value in data["std"]),
        )


@dataclass(frozen=True)
class ArchitectureRef:
    """Which code makes the dense network: a registered name, or `package.module:factory`.

    `kwargs` is JSON data and goes to the factory. The name `graph` stands for a re-emitted graph,
    which needs no code of the user.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_factory(self) -> bool:
        """Tell whether the name is `package.module:factory`, code that is not ours."""
        return ":" in self.name

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"name": self.name, "kwargs": dict(self.kwargs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArchitectureRef:
        """Read what `to_json` wrote."""
        return cls(name=str(data["name"]), kwargs=dict(data["kwargs"]))

    def __str__(self) -> str:
        if not self.kwargs:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.kwargs.items())})"


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
        "format_version": FORMAT_VERSION if sparse is None else SPARSE_VERSION,
        **({} if sparse is None else {"sparse": dict(sparse)}),
        "architecture": checkpoint.architecture.to_json(),
        "input": checkpoint.input.to_json(),
        "plan": None if checkpoint.plan is None else checkpoint.plan.to_json(),
        "graph": checkpoint.graph,
        "classes": None if checkpoint.classes is None else list(checkpoint.classes),
        "metadata": dict(checkpoint.metadata),
    }


def checkpoint_from_header(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], *, where: str
) -> Checkpoint:
    """Put a checkpoint together again; raise `LoadRefusedError` when the header is not ours."""
    if not isinstance(header, Mapping) or not _are_tensors(tensors):
        raise _damaged("it is not a set of named tensors with a description", where)
    version = header.get("format_version")
    if version not in (FORMAT_VERSION, SPARSE_VERSION):
        raise LoadRefusedError(
            f"this artefact has format {version}, and this version reads {FORMAT_VERSION} and "
            f"{SPARSE_VERSION}",
            code="FORMAT_VERSION",
            where=where,
            hint="use the prunecli version that wrote it",
        )
    sparse = header.get("sparse") if version == SPARSE_VERSION else None
    tensors, masks = unpack(tensors, sparse, where=where)
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
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    )


def _damaged(reason: str, where: str) -> LoadRefusedError:
    return LoadRefusedError(
        f"the description in this artefact is damaged: {reason}",
        code="CORRUPT_FILE",
        where=where,
        hint="write it again, or take another copy",
    )
