"""Read a model's folder as the Hugging Face hub has them: weights, and what JSON files say of them.

Nothing is fetched and no code of the folder is run. What a file names lies in the folder itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.architectures.reference import InputSpec
from prunecli.architectures.transformers_models import (
    FROM_TRANSFORMERS,
    image_class,
    is_installed,
    own_tensors,
    plain_config,
)
from prunecli.checkpoint.described import Described, cannot_rebuild, class_names
from prunecli.checkpoint.sniff import corrupt
from prunecli.checkpoint.transformers_names import norm_notes, torchvision_name, torchvision_tensors
from prunecli.errors import LoadRefusedError
from prunecli.files import MODEL_WEIGHTS, check_memory, current, is_inside, read_json, reading

if TYPE_CHECKING:
    from torch import Tensor

_USUAL_FACTOR = 1 / 255
_MOST_SHARDS = 10_000
_MOST_CHANNELS = 1024


@dataclass(frozen=True, eq=False)
class Folder:
    """The tensors of a folder, under the names of the described architecture, and its digest."""

    tensors: Mapping[str, Tensor]
    described: Described
    sha256: str


def read_folder(
    path: Path, read: Callable[[Path], Any], *, architecture: str | None = None
) -> Folder:
    """Return the model in a folder; `read` reads one file of weights.

    With an `architecture` by the user the folder's own account of it does not count. Raises
    `LoadRefusedError` for what is damaged, leads out of the folder or needs code of its own
    (`REMOTE_CODE`), and `InputError` where a package is missing.
    """
    config = _json(path / "config.json")
    files = _weight_files(path)
    check_memory(sum(each.stat().st_size for each in files), path, what="reading the weights")
    tensors: dict[str, Tensor] = {}
    for file in files:
        held = read(file)
        if not isinstance(held, Mapping) or held.keys() & tensors.keys():
            raise corrupt(file, "it is no set of named tensors, or has those of another file")
        tensors |= held
    found = _described(path, config)
    if architecture is None:
        tensors, found = _as_architecture(path, config, tensors, found)
    return Folder(tensors, found, _digest([path / "config.json", *files]))


def _json(path: Path) -> Mapping[str, Any]:
    with reading(path, corrupt):
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError("it holds no settings by name")  # noqa: TRY004
    return found


def _weight_files(path: Path) -> list[Path]:
    name = next(name for name in MODEL_WEIGHTS if (path / name).is_file())
    if not name.endswith(".json"):
        return [_inside(path, name)]
    index = _json(path / name)
    places = index.get("weight_map")
    named = set(places.values()) if isinstance(places, dict) else set()
    if not named or len(named) > _MOST_SHARDS or not all(isinstance(each, str) for each in named):
        raise corrupt(path / name, "it names no files of weights")
    return [_inside(path, each) for each in sorted(named)]


def _inside(folder: Path, name: str) -> Path:
    """Return a file of the folder; the hub's own store of downloads beside it counts as well."""
    path = folder / name
    whole = folder.resolve()
    # A download of the hub is a folder of links into `blobs`, two folders up.
    store = whole.parents[1] / "blobs" if whole.parent.name == "snapshots" else whole
    inside = any(is_inside(str(path), str(each)) for each in (whole, store))
    if Path(name).name != name or not (inside or current().outside):
        raise LoadRefusedError(
            f"the weights are said to lie in {name[:80]!r}, which is not in the folder",
            code="OUTSIDE_FOLDER",
            where=str(folder),
            hint="put all files of the model into one folder",
        )
    if not path.is_file():
        raise corrupt(folder, f"{name} is missing")
    return path


def _as_architecture(
    path: Path, config: Mapping[str, Any], tensors: dict[str, Tensor], found: Described
) -> tuple[dict[str, Tensor], Described]:
    """Return the tensors and the architecture that the configuration names."""
    if config.get("auto_map"):
        raise LoadRefusedError(
            "this model brings code of its own (auto_map in config.json), which is not run",
            code="REMOTE_CODE",
            where=str(path),
            hint="name code that you know: --arch mypackage.nets:make_net",
        )
    kinds = config.get("architectures")
    kind = kinds[0] if isinstance(kinds, list) and kinds else None
    if not isinstance(kind, str):
        raise cannot_rebuild(path, "config.json names no class")
    with reading(path, cannot_rebuild):
        same = None if is_installed() else torchvision_name(kind, config)
        if same is not None:
            said = (f"read as {same} of torchvision, which is the same network", *found.notes)
            said += norm_notes(kind, config)
            renamed = torchvision_tensors(kind, tensors)
            return renamed, dataclasses.replace(found, architecture=same, notes=said)
        settings = plain_config(image_class(kind), config)
        own = own_tensors(kind, settings, tensors)
    name = f"{FROM_TRANSFORMERS}{kind}"
    arguments = {"config": settings}
    return own, dataclasses.replace(found, architecture=name, arguments=arguments)


def _described(path: Path, config: Mapping[str, Any]) -> Described:
    """Return how images become inputs, and how classes are called."""
    names = config.get("id2label")
    classes = class_names(names, len(names)) if isinstance(names, dict) else None
    if classes == tuple(f"LABEL_{at}" for at in range(len(classes or ()))):
        classes = None  # what the package writes where nobody named them
    processor = path / "preprocessor_config.json"
    given = _json(processor) if processor.is_file() else {}
    channels = config.get("num_channels", 3)
    with reading(processor if given else path / "config.json", corrupt):
        if type(channels) is not int or not 1 <= channels <= _MOST_CHANNELS:
            raise ValueError("its images have no possible number of channels")
        mean, std = _normalisation(given, channels)
        height, width = _sides(given, config)
        spec = InputSpec.from_json(
            {"channels": channels, "height": height, "width": width, "mean": mean, "std": std}
        )
    if given:
        return Described(None, {}, spec, classes)
    note = "the normalisation is not known; pixels are scaled to 0..1 unless --mean and --std say"
    return Described(None, {}, spec, classes, (note,))


def _normalisation(given: Mapping[str, Any], channels: int) -> tuple[list[float], list[float]]:
    """Return mean and deviation of pixels between 0 and 1."""
    factor = given.get("rescale_factor", _USUAL_FACTOR) if given.get("do_rescale", True) else 1.0
    normal = bool(given.get("do_normalize", True)) and "image_mean" in given
    mean = given["image_mean"] if normal else [0.0] * channels
    std = given["image_std"] if normal else [1.0] * channels
    scale = factor / _USUAL_FACTOR
    scale = 1.0 if math.isclose(scale, 1.0, rel_tol=1e-6) else scale
    return [value / scale for value in mean], [value / scale for value in std]


def _sides(given: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width of the images that the model sees."""
    crops = given.get("do_center_crop", "crop_size" in given)
    for size in (given.get("crop_size") if crops else None, given.get("size")):
        if isinstance(size, int):
            return size, size
        if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
            return size["height"], size["width"]
        if isinstance(size, Mapping) and "shortest_edge" in size:
            return size["shortest_edge"], size["shortest_edge"]
    size = config.get("image_size", 224)
    return (size[0], size[1]) if isinstance(size, list) else (size, size)


def _digest(files: list[Path]) -> str:
    """Return the sha256 of the files' own, in their order."""
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
