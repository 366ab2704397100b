"""The file formats that networks are exported to: a new one is one entry, here or in a plugin.

A format says how a network is written, how the file is compared with it, timed and scored. The
ending of a file's name chooses its format.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from prunecli.errors import InputError
from prunecli.preflight.exporting import no_format
from prunecli.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import ImageSet
    from prunecli.exporting.precision import Convert
    from prunecli.progress import Progress
    from prunecli.report import BenchmarkRow, Evaluation, Parity


@dataclass(frozen=True)
class Written:
    """A written file; `bytes` counts its weights too when they are in a file beside it.

    `opset` is the version of ONNX's operators, for ONNX. `notes` says what is less than expected.
    """

    path: Path
    bytes: int
    opset: int | None = None
    notes: tuple[str, ...] = ()


class Write(Protocol):
    """Writes a network; `prove` is called with the finished file before it takes its place."""

    def __call__(
        self,
        model: nn.Module,
        path: Path,
        *,
        input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
        opset: int | None = None,
        metadata: Mapping[str, str] | None = None,
        classes: tuple[str, ...] | None = None,
        prove: Callable[[Path], None] | None = None,
    ) -> Written:
        """Return what was written; raise `GraphError` for a network that cannot be exported."""


class Check(Protocol):
    """Compares what a file computes with its network."""

    def __call__(
        self,
        model: nn.Module,
        path: Path,
        *,
        input: InputSpec,  # noqa: A002
        inputs: int,
        tolerance: float,
        seed: int,
    ) -> Parity:
        """Return the largest relative error; raise `ProofError` above `tolerance`."""


class Evaluate(Protocol):
    """Scores a file on images."""

    def __call__(
        self,
        path: Path,
        images: ImageSet,
        *,
        batch_size: int,
        input: InputSpec | None,  # noqa: A002
        progress: Progress,
    ) -> Evaluation:
        """Return accuracy and loss."""


@dataclass(frozen=True)
class Timer:
    """Times files beside each other; `check_devices` refuses devices that are not there.

    `run` takes what `exporting.timing.benchmark` takes.
    """

    check_devices: Callable[..., Any]
    run: Callable[..., tuple[BenchmarkRow, ...]]


@dataclass(frozen=True)
class ExportFormat:
    """One file format: `endings` of its names, the usual one first.

    `input_of` reads how images become the input of a file, None where the file does not say. A
    format without a `timer` is written and proven, and not timed. `write_any_size` writes a network
    with height and width of images free, where the format can do that. `precisions` write a float
    file in another precision, by its name: `int8`, `fp16`.
    """

    label: str
    endings: tuple[str, ...]
    write: Write
    check: Check
    evaluate: Evaluate
    input_of: Callable[[Path], InputSpec | None]
    timer: Timer | None = None
    write_any_size: Write | None = None
    precisions: Mapping[str, Convert] = field(default_factory=dict)


EXPORT_FORMATS: Registry[ExportFormat] = Registry("export format")


def find_format(path: Path) -> ExportFormat | None:
    """Return the format that a file's ending names; None for a checkpoint, say."""
    ending = path.suffix.lower()
    formats = (entry.value for entry in EXPORT_FORMATS)
    return next((found for found in formats if ending in found.endings), None)


def format_of(path: Path) -> ExportFormat:
    """Return the format that a file's ending names; raise `InputError` where it names none."""
    found = find_format(path)
    if found is None:
        endings = (ending for entry in EXPORT_FORMATS for ending in entry.value.endings)
        raise no_format(path, endings)
    return found


def writer_of(form: ExportFormat, *, dynamic_size: bool) -> Write:
    """Return what writes a network; raise `InputError` where it cannot leave image sides free."""
    if not dynamic_size:
        return form.write
    if form.write_any_size is None:
        raise InputError(
            f"{form.label} files cannot leave the size of images free",
            code="OPTION_WITHOUT_EFFECT",
            hint="leave --dynamic-size out",
        )
    return form.write_any_size


def converter_of(form: ExportFormat, precision: str) -> Convert:
    """Return what writes a precision; raise `InputError` where a format does not know it."""
    if precision not in form.precisions:
        raise InputError(
            f"{form.label} files cannot be written in {precision.upper()}",
            code="OPTION_WITHOUT_EFFECT",
            hint=f"leave --{precision} out",
        )
    return form.precisions[precision]


def write_proven(
    form: ExportFormat,
    model: nn.Module,
    path: Path,
    *,
    input: InputSpec,  # noqa: A002
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
    classes: tuple[str, ...] | None = None,
    dynamic_size: bool = False,
    inputs: int = 8,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> tuple[Written, Parity]:
    """Write `model` only if the file computes what torch computes.

    Raises what the format's `write` and `check` raise; then an earlier file at `path` is untouched.
    """
    proofs: list[Parity] = []

    def prove(written: Path) -> None:
        proofs.append(
            form.check(model, written, input=input, inputs=inputs, tolerance=tolerance, seed=seed)
        )

    file = writer_of(form, dynamic_size=dynamic_size)(
        model,
        path,
        input=input,
        opset=opset,
        metadata=metadata,
        classes=classes,
        prove=prove,
    )
    return file, dataclasses.replace(proofs[0], notes=(*file.notes, *proofs[0].notes))
