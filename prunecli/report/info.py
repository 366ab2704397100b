"""What `info` tells of a file, from its headers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from prunecli.report.runs import RunStep


@dataclass(frozen=True)
class WeightSet:
    """One set of weights in a file: `place` is where it stands, `role` what it is for.

    `role` is `weights` for those that prunecli takes, `other` for further ones, and `optimizer`.
    `parameters` counts the numbers of all tensors but statistics and tables, which is told by their
    names; `dtypes` counts the numbers by type.
    """

    place: str
    role: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]


@dataclass(frozen=True)
class ArchitectureInfo:
    """Which architecture the weights fit, and how that is known.

    `name` is None where no architecture is known; `problem` then says why, with what is near.
    `pruned` says how an artefact was cut (`module` or `graph`), `assumed` what was taken for
    granted or left out. `loads` is what it takes to use the file, where that is more than its name,
    `pickled` the class of a model that was pickled as a whole.
    """

    name: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pruned: str | None = None
    assumed: tuple[str, ...] = ()
    problem: str = ""
    loads: str = ""
    pickled: str = ""


@dataclass(frozen=True)
class InputInfo:
    """What a model takes: `[channels, height, width]`, each pixel as `(x / 255 - mean) / std`.

    Mean and deviation are empty where nobody said them. Of a model that takes something else
    than images, `arguments` describe them, and the rest is 0.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class ValueInfo:
    """An input or an output of an ONNX graph; a dimension of any size goes by its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class PrecisionInfo:
    """The precision that an ONNX graph computes in: `INT8` where any operator does, else its type.

    `operators` counts all but those that quantise, `layers` those with weights; `int8_operators`
    and `int8_layers` are those of them that compute in INT8.
    """

    name: str
    operators: int
    int8_operators: int
    layers: int
    int8_layers: int

    @property
    def statement(self) -> str:
        """Return it as one line."""
        if not self.int8_operators:
            return self.name
        share = self.int8_operators / self.operators
        return (
            f"{self.name}: {self.int8_layers} of {self.layers} layers, "
            f"{share:.0%} of {self.operators} operators"
        )


@dataclass(frozen=True)
class OnnxInfo:
    """What an ONNX file says of itself.

    `opsets` are by domain (the usual one is empty), `operators` counts the nodes by kind,
    `metadata` holds what other tools wrote. `not_counted` are the operators whose FLOPs are not
    known.
    """

    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    operators: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    not_counted: tuple[str, ...] = ()
    precision: PrecisionInfo | None = None


@dataclass(frozen=True)
class InfoReport:
    """What a model file is. What the file does not tell is None or empty.

    `kind` is `artefact` (of prunecli), `state dict`, `whole model` or `ONNX`; `format` is how it is
    stored. `file_bytes` counts weights beside the file too. `cost` holds what is known of `flops`,
    `params`, `activations` and `bytes`. `class_count` can be known without the names in `classes`.
    `sparsity` is the share of weights stored as zeros, `claimed` what the file says it reaches.
    """

    file: Path
    kind: str
    format: str
    file_bytes: int
    sha256: str
    architecture: ArchitectureInfo | None
    class_count: int | None
    classes: tuple[str, ...] | None
    input: InputInfo | None
    cost: Mapping[str, float | None]
    weights: tuple[WeightSet, ...]
    sparsity: float | None = None
    claimed: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    history: tuple[RunStep, ...] = ()
    onnx: OnnxInfo | None = None
    warnings: tuple[str, ...] = ()
