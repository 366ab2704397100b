"""The names of timm's models, read from its source: importing it takes seconds."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_MODEL = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)


@cache
def timm_names() -> tuple[str, ...]:
    """Return the names of timm's models, sorted; nothing where timm is not installed."""
    found = (name for text in _sources() for name in _MODEL.findall(text))
    return tuple(sorted(set(found)))


def is_known_to_timm(name: str) -> bool:
    """Tell whether timm may know a name: that of a model, with or without a tag, or an older one.

    >>> is_known_to_timm("no_such_model")
    False
    """
    model = name.partition(".")[0]
    return model in timm_names() or any(f"'{model}'" in text for text in _sources())


@cache
def _sources() -> tuple[str, ...]:
    package = find_spec("timm")
    if package is None or package.origin is None:
        return ()
    folder = Path(package.origin).parent / "models"
    return tuple(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
