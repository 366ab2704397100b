"""The models of the package ultralytics, as `ultralytics/NAME`: YOLO in all its sizes.

A model of the package is its table of layers, which the package turns into modules by name, partly
with `eval`. A file says which of the package's own tables it was made from; then that of the
package is taken. A table that is the file's own is taken only where it holds names of layers from
the list below, plain numbers and a few words.
"""

from __future__ import annotations

import copy
import logging
import os
import re
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.architectures.architecture import Architecture
from prunecli.architectures.arguments import CLASSES, Argument, whole
from prunecli.architectures.reference import InputSpec
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

FROM_ULTRALYTICS = "ultralytics/"
"""What names of the package's models begin with here; they are known by name only."""

HEADS: Mapping[str, str] = {
    "Classify": "ClassificationModel",
    "Detect": "DetectionModel",
    "OBB": "OBBModel",
    "OBB26": "OBBModel",
    "Pose": "PoseModel",
    "Pose26": "PoseModel",
    "Segment": "SegmentationModel",
    "Segment26": "SegmentationModel",
    "v10Detect": "DetectionModel",
}
"""The class of a model by the last of its layers."""

_LAYERS = frozenset(
    {
        *HEADS,
        *("A2C2f", "AConv", "ADown", "AIFI", "Bottleneck", "BottleneckCSP", "C1", "C2", "C2f"),
        *("C2fCIB", "C2fPSA", "C2PSA", "C3", "C3Ghost", "C3k2", "C3TR", "C3x", "CBFuse"),
        *("CBLinear", "Concat", "Conv", "ConvTranspose", "DWConv", "DWConvTranspose2d", "ELAN1"),
        *("Focus", "GhostBottleneck", "GhostConv", "HGBlock", "HGStem", "PSA", "RepC3"),
        *("RepNCSPELAN4", "ResNetLayer", "SCDown", "SPP", "SPPELAN", "SPPF"),
        *("nn.BatchNorm2d", "nn.Conv2d", "nn.ConvTranspose2d", "nn.Identity", "nn.MaxPool2d"),
        *("nn.Upsample", "nn.ZeroPad2d"),
    }
)
_WORDS = frozenset({"nc", "None", "nearest", "bilinear", "kpt_shape"})
_ACTIVATION = re.compile(
    r"(torch\.)?nn\.(ReLU|ReLU6|SiLU|LeakyReLU|Hardswish|GELU|Mish|Identity)\(\)"
)
_MOST_LAYERS = 300
_MOST_REPEATS = 100
_LARGEST = 16_384
_MOST_WEIGHTS = 2**29
_KEYS = ("activation", "depth_multiple", "end2end", "kpt_shape", "reg_max", "width_multiple")
"""What a table may say besides its layers, sizes and classes."""


def ultralytics_architecture(name: str) -> Architecture:
    """Return the architecture of a table of the package, or of a class that takes a table.

    Raises `InputError` where the package is not installed or does not know the name.
    """
    _tasks(name)
    if name in HEADS.values():
        return Architecture(
            factory=f"{__name__}:build",
            input=_input(name),
            arguments={"task": name},
            variants={},
            accepts={"table": Argument(_is_table, "a table of known layers and plain numbers")},
        )
    table = packaged(name)
    if table is None:
        known = [f"{FROM_ULTRALYTICS}{each}" for each in _tables() if name[:5] in each][:5]
        raise InputError(
            f"ultralytics has no model {name!r} of a kind that can be read",
            code="UNKNOWN_ARCHITECTURE",
            hint=f"did you mean {', '.join(known)}" if known else "take yolov8n or yolo11n",
        )
    return Architecture(
        factory=f"{__name__}:build_named",
        input=_input(_task(table)),
        arguments={"name": name},
        variants={},  # their number changes widths inside as well, so it has to be said
        accepts={"num_classes": CLASSES, "channels": whole(1, 1024)},
    )


def reference(task: str, table: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments of the architecture that a file describes.

    Raises `ValueError` for a table that is not accepted, and `InputError` without the package.
    """
    file = table.get("yaml_file")
    stem = Path(file).stem if isinstance(file, str) else ""
    _tasks(stem)
    own = plain_table(table)
    theirs = packaged(stem)
    if theirs is not None and _task(theirs) == task:
        shared = {"nc": own["nc"], "channels": own["channels"]}
        if {**theirs, **shared} == own:
            arguments = {"num_classes": own["nc"], "channels": own["channels"]}
            return f"{FROM_ULTRALYTICS}{stem}", arguments
    _check_task(own, task)
    return f"{FROM_ULTRALYTICS}{task}", {"table": own}


def build_named(name: str, num_classes: int | None = None, channels: int = 3) -> nn.Module:
    """Return a model of the package with other classes and channels."""
    table = packaged(name)
    if table is None:
        raise ValueError(f"ultralytics has no model {name!r}")
    changed = {"channels": channels, "nc": table["nc"] if num_classes is None else num_classes}
    return build(_task(table), {**table, **changed})


def build(task: str, table: Mapping[str, Any]) -> nn.Module:
    """Return the model of a table on the CPU, whatever the device in force: it runs itself once.

    Raises `ValueError` for a table that is not accepted, or for more weights than any such model.
    """
    import torch  # only here: names and settings are told without it

    table = plain_table(table)
    _check_task(table, task)
    tasks = _tasks(task)
    given: dict[str, Any] = copy.deepcopy(table)
    logging.getLogger("ultralytics").setLevel(logging.ERROR)  # it prints what it makes
    with torch.device("meta"):
        layers, _ = tasks.parse_model(copy.deepcopy(given), ch=table["channels"], verbose=False)
    count = sum(weight.numel() for weight in layers.parameters())
    if count > _MOST_WEIGHTS:
        raise ValueError(f"its table asks for {count:,} weights")
    with torch.device("cpu"):
        made: nn.Module = getattr(tasks, task)(given, ch=table["channels"], verbose=False)
    return made


def plain_table(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a table that decides on the model, as JSON data.

    Raises `ValueError` for what is no known layer, no plain number and no known word.
    """
    sizes = table.get("scales")
    found: dict[str, Any] = {
        "nc": _number(table["nc"], most=1_000_000),
        "channels": _number(table.get("channels", table.get("ch", 3)), most=1024),
        **{part: [_row(row) for row in _list(table[part], _MOST_LAYERS)] for part in _PARTS},
        **{key: _value(table[key]) for key in _KEYS if table.get(key) is not None},
    }
    if sizes:
        size = table.get("scale") or next(iter(sizes))
        if not isinstance(size, str) or not re.fullmatch(r"[a-z]", size):
            raise ValueError("the size of the model is no letter")
        found |= {"scale": size, "scales": {size: [_value(each) for each in _list(sizes[size], 3)]}}
    activation = found.get("activation")
    if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
        raise ValueError("its activation is none that is known")
    return found


_PARTS = ("backbone", "head")


def _row(row: Any) -> list[Any]:
    source, repeats, layer, arguments = _list(row, 4)
    if not isinstance(layer, str) or layer not in _LAYERS:
        shown = layer[:40] if isinstance(layer, str) else type(layer).__name__
        raise ValueError(f"it has a layer that is not known: {shown}")
    sources = [_number(each, least=-_MOST_LAYERS, most=_MOST_LAYERS) for each in (
        _list(source, 16) if isinstance(source, list | tuple) else [source]
    )]  # fmt: skip
    return [
        sources if isinstance(source, list | tuple) else sources[0],
        _number(repeats, most=_MOST_REPEATS),
        layer,
        [_value(each) for each in _list(arguments, 16)],
    ]


def _value(value: Any, *, inside: bool = False) -> Any:
    if isinstance(value, list | tuple) and not inside:
        return [_value(each, inside=True) for each in _list(value, 16)]
    if isinstance(value, str):
        if value not in _WORDS and not _ACTIVATION.fullmatch(value):
            raise ValueError(f"it has a word that is not known: {value[:40]!r}")
        return value
    if value is None or isinstance(value, bool):
        return value
    return _number(value, least=-_LARGEST)


def _list(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise ValueError("its table of layers is not what the package writes")
    return list(value)


def _number(value: Any, *, least: float = 0, most: float = _LARGEST) -> Any:
    if type(value) not in {int, float} or not least <= value <= most:
        raise ValueError("its table has a number out of bounds")
    return value


def _is_table(value: Any) -> bool:
    try:
        return isinstance(value, dict) and plain_table(value) == value
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def _task(table: Mapping[str, Any]) -> str:
    rows = table["head"]
    return HEADS.get(rows[-1][2], "") if rows else ""


def _check_task(table: Mapping[str, Any], task: str) -> None:
    if _task(table) != task:
        raise ValueError(f"the last layer of its table is not that of a {task}")


def _input(task: str) -> InputSpec:
    side = 224 if task == "ClassificationModel" else 640
    return InputSpec(3, side, side, (0.0,) * 3, (1.0,) * 3)


@cache
def packaged(name: str) -> Mapping[str, Any] | None:
    """Return the package's own table of a name such as `yolov8n-seg`; None for any other name.

    Raises `InputError` where the package is not installed.
    """
    tasks = _tasks(name)
    stem = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", name)
    path = _tables().get(name) or _tables().get(stem)
    if path is None or not re.fullmatch(r"[A-Za-z0-9-]+", name):
        return None
    from ultralytics.utils import YAML

    table = {**YAML.load(path), "scale": tasks.guess_model_scale(name)}
    try:
        plain = plain_table(table)
    except (ValueError, TypeError, KeyError):
        return None
    return plain if _task(plain) else None


@cache
def _tables() -> Mapping[str, Path]:
    with _quiet():
        import ultralytics
    folder = Path(ultralytics.__file__).parent / "cfg" / "models"
    return {path.stem: path for path in sorted(folder.glob("*/*.yaml"))}


def _tasks(name: str) -> Any:
    """Return the module of the package that makes models."""
    try:
        with _quiet():
            from ultralytics.nn import tasks
    except ImportError as error:
        raise InputError(
            f"{FROM_ULTRALYTICS}{name} needs ultralytics, which is not installed",
            code="MISSING_EXTRA",
            hint="pip install ultralytics",
        ) from error
    return tasks


@contextmanager
def _quiet() -> Iterator[None]:
    """Import the package without its looking for a network or installing anything."""
    wanted = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update({name: before[name] or value for name, value in wanted.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
