"""Layers named by patterns: which channel groups a pattern means."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions


def matches(group: ChannelGroup, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern names the group or a layer that makes its channels."""
    layers = {group.name} | {name.rpartition(".")[0] for name, _ in group.producers}
    return any(fnmatch.fnmatchcase(layer, pattern) for layer in layers for pattern in patterns)


def check_patterns(network: Network, options: PruneOptions) -> None:
    """Raise `InputError` (`NO_SUCH_LAYER`) for a pattern of layers that matches none."""
    groups = (network.whole or network).coupling.groups  # those of deleted blocks too
    # To exclude what stays whole anyway (the classifier) is no mistake; to ask for it alone is.
    layers = [name for name, _ in network.model.named_modules()]
    whole = {"--exclude": layers, "--only": []}
    for flag, patterns in (("--exclude", options.exclude), ("--only", options.only)):
        for pattern in patterns:
            found = any(matches(group, [pattern]) for group in groups)
            if not found and not fnmatch.filter(whole[flag], pattern):
                names = ", ".join(group.name for group in groups[:5])
                raise InputError(
                    f"{flag} {pattern} matches no layer",
                    code="NO_SUCH_LAYER",
                    hint=f"layers are called {names} ...; prunecli analyze lists them all",
                )
