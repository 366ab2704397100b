"""How an architecture is named: by a registered name, or a factory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.architectures.argument import Argument
from prunecli.architectures.inputs import InputSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GRAPH", "ArchitectureRef", "Argument", "InputSpec"]

GRAPH = "graph"


@dataclass(frozen=True)
class ArchitectureRef:
    """Which code makes the dense network: a registered name, or `package.module:factory`.

    `kwargs` is JSON data and goes to the factory. `changes` is JSON data on what is other than the
    factory makes it, by the path of the module: another head or stem
    (`prunecli.architectures.changes`). The name `graph` stands for a re-emitted graph, which needs
    no code of the user.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_factory(self) -> bool:
        """Tell whether the name is `package.module:factory`, code that is not ours."""
        return ":" in self.name

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        changed = {"changes": dict(self.changes)} if self.changes else {}
        return {"name": self.name, "kwargs": dict(self.kwargs), **changed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArchitectureRef:
        """Read what `to_json` wrote."""
        name, kwargs = str(data["name"]), dict(data["kwargs"])
        return cls(name, kwargs, dict(data.get("changes", {})))

    def __str__(self) -> str:
        # A whole configuration says too much for a line.
        short = {key: value for key, value in self.kwargs.items() if not isinstance(value, dict)}
        given = ", ".join(f"{key}={value}" for key, value in short.items())
        called = f"{self.name}({given})" if given else self.name
        if not self.changes:
            return called
        return f"{called} with {', '.join(map(_change, self.changes.items()))}"


def _change(item: tuple[str, Any]) -> str:
    """Return in words what stands at a path; what a file says may be anything.

    >>> _change(("fc", [{"layer": "dropout"}, {"layer": "linear", "inputs": 512, "outputs": 7}]))
    'fc: dropout + linear(inputs=512, outputs=7)'
    """
    path, described = item
    layers = described if isinstance(described, list) else [described]
    return f"{path}: {' + '.join(map(_layer, layers))}"


def _layer(described: Any) -> str:
    if not isinstance(described, dict):
        return str(described)[:80]
    told = {key: value for key, value in described.items() if key != "layer"}
    given = ", ".join(f"{key}={value}" for key, value in told.items())[:200]
    return f"{described.get('layer')}({given})" if given else str(described.get("layer"))
