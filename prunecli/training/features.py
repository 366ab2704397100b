"""What layers return while a network runs, beside its outputs: features to follow a teacher's."""

from __future__ import annotations

import fnmatch
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError
from prunecli.evaluation.output_kinds import output_tensors
from prunecli.wording import some

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

LAYER = " (layer)"
"""What stands behind the name of a layer among outputs."""


@dataclass(frozen=True)
class Features:
    """The layers whose outputs follow those of the teacher's layers of the same names."""

    layers: tuple[str, ...] = ()

    @contextmanager
    def heard(self, model: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Gather what the layers return while the model runs, by their names."""
        found: dict[str, Tensor] = {}
        handles = [
            model.get_submodule(name).register_forward_hook(_keep(found, name))
            for name in self.layers
        ]
        try:
            yield found
        finally:
            for handle in handles:
                handle.remove()


def _keep(found: dict[str, Tensor], name: str) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensors = output_tensors(output)
        if tensors:
            found[f"{name}{LAYER}"] = next(iter(tensors.values()))

    return hook


def is_feature(name: str) -> bool:
    """Tell whether a name among outputs is that of a layer's features."""
    return name.endswith(LAYER)


def features_of(patterns: Sequence[str], student: nn.Module, teacher: nn.Module) -> Features:
    """Return the layers that patterns name in both models.

    Raises `InputError` (`NO_SUCH_LAYER`) for a pattern that names none.
    """
    its = {name for name, _ in teacher.named_modules() if name}
    both = [name for name, _ in student.named_modules() if name in its]
    for pattern in patterns:
        if not fnmatch.filter(both, pattern):
            raise InputError(
                f"--match {pattern} names no layer that the model and its teacher both have",
                code="NO_SUCH_LAYER",
                hint=f"both have {some(both)}"
                if both
                else "they share no names of layers: leave --match out",
            )
    named = (name for name in both if any(fnmatch.fnmatchcase(name, each) for each in patterns))
    return Features(tuple(named))
