"""What a file of ultralytics says of the model that is pickled in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunecli.architectures.reference import InputSpec
from prunecli.architectures.ultralytics_models import HEADS, reference
from prunecli.checkpoint.described import Described, cannot_rebuild, class_names
from prunecli.files import reading

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.checkpoint.inert import Stub

_MODULE = "ultralytics.nn.tasks."
_SIDES = range(32, 8193)


def describe_ultralytics(module: Stub, path: Path) -> Described | None:
    """Return what a pickled model of ultralytics is; None for any other module.

    Raises `InputError` where the package is not installed, and `LoadRefusedError`
    (`UNKNOWN_LAYERS`) for a model with layers that are not the package's own.
    """
    task = module.name.removeprefix(_MODULE)
    table = module.fields.get("yaml")
    if not module.name.startswith(_MODULE) or task not in HEADS.values():
        return None
    with reading(path, cannot_rebuild):
        name, arguments = reference(task, table if isinstance(table, Mapping) else {})
    own = arguments.get("table", {})
    count = arguments.get("num_classes", own.get("nc"))
    spec = InputSpec(
        channels := arguments.get("channels", own.get("channels")),
        *_sides(module.fields, task),
        (0.0,) * channels,
        (1.0,) * channels,
    )
    return Described(name, arguments, spec, class_names(module.fields.get("names"), count))


def _sides(fields: Mapping[Any, Any], task: str) -> tuple[int, int]:
    """Return the height and width that a model was trained with, or those of its kind."""
    options: Any = fields.get("args")
    size = options.get("imgsz") if isinstance(options, Mapping) else None
    sides: list[Any] = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(sides) == 2 and all(type(side) is int and side in _SIDES for side in sides):
        return sides[0], sides[1]
    return (224, 224) if task == HEADS["Classify"] else (640, 640)
