"""The two files of fingerprints that `make_index` writes, each read once."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.architectures.fingerprint import SHORT_SKETCH, Fingerprint
from prunecli.architectures.timm_models import FROM_TIMM

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INDEX_PATH = Path(__file__).with_name("index.json")
TIMM_INDEX_PATH = Path(__file__).with_name("timm_index.json")


@dataclass(frozen=True)
class TimmModels:
    """Models of timm with the same names and shapes.

    `names` are in groups of those that compute the same, each group and the whole with the
    plainest name first; all begin with `timm/`.
    """

    fingerprint: Fingerprint
    names: tuple[tuple[str, ...], ...]


def torchvision_index() -> Mapping[str, Any]:
    """Return what is known of torchvision's classifiers, by name."""
    described: Mapping[str, Any] = _read(INDEX_PATH).get("torchvision", {})
    return described


@cache
def known_fingerprint(name: str) -> Fingerprint | None:
    """Return the fingerprint of an architecture from the index; None where it has none."""
    if name.startswith(FROM_TIMM):
        models = timm_models(name)
        return None if models is None else models.fingerprint
    known = _read(INDEX_PATH).get("fingerprints", {}).get(name)
    return None if known is None else Fingerprint.from_json(known)


@cache
def timm_index() -> tuple[TimmModels, ...]:
    """Return the models of timm, those with the same names and shapes together."""
    index = _read(TIMM_INDEX_PATH)
    classes = [tuple((name, dim) for name, dim in pairs) for pairs in index.get("classes", ())]
    return tuple(
        TimmModels(
            Fingerprint(
                digest,
                {"num_classes": classes[at]} if classes[at] else {},
                struct.unpack(f"<{SHORT_SKETCH}I", base64.b64decode(sketch)),
                order,
                size,
            ),
            tuple(tuple(FROM_TIMM + name for name in group) for group in names),
        )
        for names, digest, at, sketch, order, size in index.get("models", ())
    )


def timm_models_to_json(models: Iterable[TimmModels]) -> dict[str, Any]:
    """Return what `timm_index` reads, in few bytes; the names come without `timm/`."""
    classes: list[Any] = []
    rows = []
    for row in models:
        known = row.fingerprint
        free = known.free.get("num_classes", ())
        if free not in classes:
            classes.append(free)
        sketch = base64.b64encode(struct.pack(f"<{SHORT_SKETCH}I", *known.sketch[:SHORT_SKETCH]))
        rows.append(
            [row.names, known.digest, classes.index(free), sketch.decode(), known.order, known.size]
        )
    return {"classes": classes, "models": rows}


def timm_models(name: str) -> TimmModels | None:
    """Return the models of timm that have the names and shapes of `timm/NAME`."""
    return _timm_by_name().get(name)


@cache
def _timm_by_name() -> dict[str, TimmModels]:
    return {name: row for row in timm_index() for group in row.names for name in group}


@cache
def _read(path: Path) -> dict[str, Any]:
    if not path.exists():  # while it is being made
        return {}
    index: dict[str, Any] = json.loads(path.read_text())
    return index
