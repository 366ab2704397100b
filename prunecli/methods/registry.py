"""How `prune` comes to a cut, by name: at once, or by a method that trains meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from prunecli.registry import Registry

if TYPE_CHECKING:
    from prunecli.methods.dynamic.road import Dynamic
    from prunecli.methods.iterative.road import Iterative
    from prunecli.methods.learning.rule import Rule

    Method: TypeAlias = type[Dynamic | Iterative | Rule] | None
else:
    Method = object

METHODS: Registry[Method] = Registry("pruning method")
"""Ways of pruning that train, and rules to learn what to prune by; None for a cut at once."""

METHODS.add("one-shot", None, summary="Choose once, cut once (default).")
