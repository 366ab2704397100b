"""Which channel groups can have gates in the weights that read them, and why others have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prunecli.proof.inputs import zeroed_sites

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prunecli.network.traced import Network


def gateable(
    network: Network,
    held: Mapping[str, str],
    *,
    by_gates: bool = True,
    written: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.bool_], dict[str, str]]:
    """Return one boolean per atom, whether it can be chosen, and why groups cannot.

    `held` says which groups stay whole in any case. With `by_gates`, the weights to multiply gates
    into have to be read by operators of the traced graph themselves. The atoms in `written` are
    gated where they are written; groups that no layer makes follow those.
    """
    gated = np.zeros(network.coupling.atom_count, np.bool_)
    reasons: dict[str, str] = {}
    readable = _read_by_operators(network) if by_gates else None
    apart = np.zeros_like(gated)
    apart[[] if written is None else written] = True
    for group in network.coupling.groups:
        if not group.producers:
            continue
        reason = held.get(group.name)
        if reason is None and not group.exact:
            reason = "a norm runs over its channels, and a mask is not a cut there"
        if reason is None and group.width < 2 and not apart[group.atoms].any():
            reason = "it has a single channel"
        sites = {name for name, _ in zeroed_sites(group)}
        read = readable is None or apart[group.atoms].all() or sites <= readable
        if reason is None and readable is not None and not read:
            reason = f"a gate would sit inside a module ({min(sites - readable)})"
        if reason is None:
            gated[group.atoms] = True
        else:
            reasons[group.name] = reason
    return gated, reasons


def _read_by_operators(network: Network) -> set[str]:
    """Return the tensors that operators of the re-emitted graph read, and no module in it."""
    graph, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    return {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
