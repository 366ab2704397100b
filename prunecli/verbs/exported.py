"""What an export writes: a proven float file, or one in another precision that is made of it."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.architectures.inputs import check_takes_images
from prunecli.data import available_splits, evaluation_split, load_split, open_source
from prunecli.exporting.onnx.evaluate import match_classes
from prunecli.exporting.precision import Examples, Request
from prunecli.exporting.processors import overflows_int8
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from prunecli.architectures.reference import InputSpec
    from prunecli.data import DataSource, ImageSet
    from prunecli.exporting import ExportFormat, Written
    from prunecli.options import ExportOptions
    from prunecli.progress import Progress
    from prunecli.report import Conversion, Parity


@dataclass(frozen=True)
class Exported:
    """A file in its place; in another precision `float_file` is what it was made of."""

    file: Written
    parity: Parity
    conversion: Conversion | None = None
    float_file: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is less than one may expect of it."""
        return (*self.parity.notes, *(self.conversion.notes if self.conversion else ()))


def request_of(
    options: ExportOptions,
    data: str | None,
    *,
    model: nn.Module,
    input: InputSpec,  # noqa: A002 - the name that the rest of the library uses
    classes: tuple[str, ...] | None,
    progress: Progress,
) -> Request:
    """Return how a model is to be written in another precision; its images are read.

    Raises what reading them raises, and `InputError` for a model of something else.
    """
    reduce = {"auto": overflows_int8(), "yes": True, "no": False}[options.reduce_range]
    request = Request(
        input,
        max_drop=options.max_drop,
        reduce_range=reduce,
        threads=options.threads,
        seed=options.seed,
        progress=progress,
    )
    if data is None:
        return request
    check_takes_images(input)
    from prunecli.verbs.images import class_count

    source = open_source(data)
    labels = None
    if len(source.classes) == class_count(model, input):
        labels, _ = match_classes(classes, source.classes)
    examples = Examples(*_images(source, input, options, progress), labels)
    return replace(request, examples=examples)


def _images(
    source: DataSource,
    spec: InputSpec,
    options: ExportOptions,
    progress: Progress,
) -> tuple[ImageSet, ImageSet]:
    """Return images to calibrate on, and others to judge by: of a test set alone, its halves."""
    judging = evaluation_split(source, trained=True)
    calibrating = "train" if "train" in available_splits(source) else "held_out"
    if calibrating == judging or calibrating not in available_splits(source):
        source, calibrating, judging = _halved(source, judging), "train", "test"
    limits = {calibrating: options.calibration, judging: options.limit}
    first, second = (
        load_split(
            source, split, input=spec, seed=options.seed, limit=limits[split], progress=progress
        )
        for split in (calibrating, judging)
    )
    return first, second


def _halved(source: DataSource, split: str) -> DataSource:
    """Return a source of one split as one that is divided when it is loaded."""
    whole = next(source.splits[name] for name in source.splits if split in {name, "held_out"})
    return replace(source, splits={"all": whole})


@contextmanager
def exported(
    form: ExportFormat,
    model: nn.Module,
    target: Path,
    *,
    request: Request,
    options: ExportOptions,
    classes: tuple[str, ...] | None,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[Exported]:
    """Write a model, in float or in another precision, and yield what came of it.

    Another precision is made of a float file that is proven equal to torch first; that is there for
    the block. Raises what `write_proven` and the conversion raise; then nothing is written.
    """
    from prunecli.exporting import converter_of, write_proven

    write = partial(
        write_proven,
        form,
        model,
        input=request.input,
        opset=options.opset,
        dynamic_size=options.dynamic_size,
        classes=classes,
        metadata=metadata,
        tolerance=options.tolerance,
        seed=options.seed,
    )
    if not options.precision:
        yield Exported(*write(target))
        return
    convert = converter_of(form, options.precision)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"float{form.endings[0]}"
        written, parity = write(file)
        conversion = convert(file, target, request)
        notes = _notes(conversion, request, dynamic_size=options.dynamic_size)
        conversion = replace(conversion, notes=(*conversion.notes, *notes))
        own = replace(written, path=target, bytes=conversion.bytes)
        yield Exported(own, parity, conversion, file)


def _notes(conversion: Conversion, request: Request, *, dynamic_size: bool) -> Iterator[str]:
    if conversion.precision == "int8" and dynamic_size:
        height, width = request.input.height, request.input.width
        yield f"calibrated on images of {height}x{width}; other sizes are as good as they are like"
    if conversion.images and conversion.accuracy is None:
        count = counted(conversion.images, "image")
        yield (
            f"the labels of the data are not the classes of the model: on {count} only the "
            "agreement with float is told"
        )
    if request.reduce_range:
        yield (
            "weights have 7 bits, for x86 processors without VNNI; --reduce-range no gives 8 bits "
            "to others"
        )
