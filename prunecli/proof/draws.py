"""Random draws that do not depend on shapes: every draw gives its mean.

Dropout of fewer channels draws other numbers, so two networks of different widths cannot be
compared as they train. Their means can be: dropout keeps everything, noise around 0 adds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from prunecli.graph.operators import operator_name

if TYPE_CHECKING:
    from collections.abc import Callable


class MeanDraws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets random operators give the mean of what they draw.

    Those that draw positions (a permutation of the batch) go by the seed, as ever.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _bound(func, args, kwargs or {})
        name = operator_name(func)
        if name in _MEANS and torch.Tag.nondeterministic_seeded in func.tags:
            return func(**given).fill_(_MEANS[name](given))
        if name in _WITHOUT_DRAWS:
            return _WITHOUT_DRAWS[name](func, given)
        return func(**{**given, **dict.fromkeys(_DROPOUT & given.keys(), 0.0)})


def _bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    names = [argument.name for argument in func._schema.arguments]  # noqa: SLF001
    return {**dict(zip(names, args, strict=False)), **kwargs}


_DROPOUT = frozenset({"dropout", "dropout_p"})
"""Arguments of fused operators (attention, recurrent layers) that drop entries."""

_MEANS: dict[str, Callable[[dict[str, Any]], float]] = {
    "exponential": lambda given: 1 / given.get("lambd", 1.0),
    "normal": lambda given: given.get("mean", 0.0),
    "rand": lambda _: 0.5,
    "rand_like": lambda _: 0.5,
    "randn": lambda _: 0.0,
    "randn_like": lambda _: 0.0,
    "uniform": lambda given: (given.get("from", 0.0) + given.get("to", 1.0)) / 2,
}
"""By operator: the mean of every entry that it makes."""


def _bernoulli(func: Any, given: dict[str, Any]) -> torch.Tensor:
    source: torch.Tensor = given["self"]
    share = given.get("p")
    if func._schema.is_mutable:  # noqa: SLF001
        share = 0.5 if share is None else share
        return source.copy_(share) if isinstance(share, torch.Tensor) else source.fill_(share)
    return source.clone() if share is None else torch.full_like(source, share)


def _native_dropout(_: Any, given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    source = given["input"]
    return source.clone(), torch.ones_like(source, dtype=torch.bool)


_WITHOUT_DRAWS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "bernoulli": _bernoulli,
    "native_dropout": _native_dropout,
    "rrelu_with_noise": lambda func, given: func(**{**given, "training": False}),
}
