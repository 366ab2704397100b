"""A file whose tensors are called otherwise than those of the architecture that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunecli.architectures.fingerprint import Shapes, shapes_of
from prunecli.architectures.lookup import fingerprint_of, match_order
from prunecli.architectures.reference import ArchitectureRef
from prunecli.architectures.registry import architecture_of, build_dense
from prunecli.checkpoint.fitting import Fit, input_of
from prunecli.checkpoint.order import match_by_order
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


def fit_in_order(shapes: Shapes, name: str, given: Mapping[str, Any]) -> Fit | None:
    """Return how a file is an architecture by the order of its shapes, whatever their names."""
    last = next(reversed(list(shapes.values())), ())
    free = fingerprint_of(name).free
    classes = {"num_classes": last[0]} if "num_classes" in free and last else {}
    arguments = {**classes, **given}
    expected = shapes_of(build_dense(ArchitectureRef(name, arguments)).state_dict())
    ordered = match_by_order(shapes, expected)
    if ordered is None:
        return None
    notes = [f"its tensors have other names than those of {name}, and are read in their order"]
    if ordered.doubtful:
        one, two = ordered.doubtful[0]
        notes.append(
            f"nothing but the order tells {one} from {two}"
            + (f", and {len(ordered.doubtful) - 1} more pairs" if ordered.doubtful[1:] else "")
        )
    spec = input_of(architecture_of(name).input, arguments, None)
    reference = ArchitectureRef(name, arguments)
    return Fit("", reference, spec, ordered.renamed, (), (), len(shapes), tuple(notes))


def ask_for_order(shapes: Shapes, *, where: str) -> None:
    """Raise `InputError` where a file has the shapes of an architecture under other names."""
    names = [name for name in match_order(shapes) if _has_order_of(name, shapes)]
    if names:
        raise InputError(
            f"these {len(shapes)} tensors have other names and, one by one, the shapes of "
            f"{', '.join(names)}: that is a guess",
            code="AMBIGUOUS_ARCHITECTURE",
            where=where,
            hint=f"if it is right, say so: {' or '.join(f'--arch {name}' for name in names)}",
        )


def _has_order_of(name: str, shapes: Shapes) -> bool:
    try:
        return fit_in_order(shapes, name, {}) is not None
    except InputError as error:
        if error.code != "MISSING_EXTRA":
            raise
        return True  # as far as can be told without timm
