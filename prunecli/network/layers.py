"""What single layers cost, what they lose in a cut, and what holds them fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.graph.coupling.groups import STAYS, staying
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.report import FrozenReport, LayerAnalysis, LayerCut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.cost.model import Widths
    from prunecli.graph.coupling.groups import Atoms
    from prunecli.network.traced import Network

OUTPUTS_STAY = "what it makes is no channel that can go"


@dataclass(frozen=True)
class _Layer:
    """A weight with the calls that read it; `atoms` are those of the channels it makes."""

    name: str
    operator: str
    calls: tuple[str, ...]
    tensors: tuple[str, ...]
    channels: int
    atoms: Atoms | None
    reason: str

    @property
    def free(self) -> int:
        """The number of channels that may go."""
        return 0 if self.atoms is None else int((self.atoms != STAYS).any(0).sum())


def analyzed_layers(
    network: Network, saliency: NDArray[np.float64]
) -> tuple[tuple[LayerAnalysis, ...], dict[str, float]]:
    """Return every layer of the dense network, and the FLOPs outside of them by operator.

    `saliency` has one value per atom. A layer that runs several times is listed once.
    """
    layers = _layers(network)
    flops, params = _counts(network, network.cost.dense_widths)
    group_of = _group_names(network)
    found = tuple(
        LayerAnalysis(
            name=layer.name,
            operator=layer.operator,
            channels=layer.channels,
            free=layer.free,
            flops=sum(flops.get(call, 0.0) for call in layer.calls),
            params=sum(params.get(tensor, 0.0) for tensor in layer.tensors),
            saliency=_mean(layer.atoms, saliency),
            groups=() if layer.atoms is None else _named(layer.atoms, group_of),
            reason=layer.reason,
        )
        for layer in layers
    )
    return found, _elsewhere(network, flops, {call for layer in layers for call in layer.calls})


def cut_layers(
    network: Network,
    keep: NDArray[np.bool_],
    widths: Widths,
    *,
    whole: Sequence[FrozenReport] = (),
) -> tuple[LayerCut, ...]:
    """Return every layer before and after a cut that keeps these atoms.

    `whole` are channel groups that the choice itself left as they are.
    """
    before = _counts(network, network.cost.dense_widths)
    after = _counts(network, widths)
    group_of, held = _group_names(network), {item.name: item.reason for item in whole}
    found = []
    for layer in _layers(network):
        kept = layer.channels if layer.atoms is None else int(staying(layer.atoms, keep).sum())
        groups = () if layer.atoms is None else _named(layer.atoms, group_of)
        reasons = [held[name] for name in groups if name in held]
        reason = layer.reason or (reasons[0] if reasons else "")
        flops, params, flops_kept, params_kept = (
            sum(counts.get(name, 0.0) for name in names)
            for counts, names in zip(
                (*before, *after), (layer.calls, layer.tensors) * 2, strict=True
            )
        )
        found.append(
            LayerCut(
                name=layer.name,
                operator=layer.operator,
                channels=layer.channels,
                kept=kept,
                flops=flops,
                flops_kept=flops_kept,
                params=params,
                params_kept=params_kept,
                reason=reason if kept == layer.channels else "",
            )
        )
    return tuple(found)


def _layers(network: Network) -> list[_Layer]:
    trace, coupling = network.trace, network.coupling
    calls: dict[str, list[str]] = {}
    first: dict[str, tuple[str, str | None]] = {}
    for node in trace.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in PRODUCERS:
            continue
        arguments = schema_arguments(node)
        tensor = trace.tensors.get(arguments["weight"].name)
        if tensor is None:  # made in the forward of something that is no weight
            continue
        bias = arguments.get("bias")
        own = None if bias is None else trace.tensors.get(bias.name)
        calls.setdefault(tensor, []).append(node.name)
        first.setdefault(tensor, (operator, own))
    reasons = {site: item.reason for item in coupling.frozen for site in item.sites}
    layers = []
    for tensor, (operator, bias) in first.items():
        made = PRODUCERS[operator]
        atoms = coupling.tensors.get(tensor, {}).get(made)
        reason = "" if atoms is not None else reasons.get((tensor, made), OUTPUTS_STAY)
        layers.append(
            _Layer(
                name=tensor.removesuffix(".weight"),
                operator=operator,
                calls=tuple(calls[tensor]),
                tensors=(tensor, *([] if bias is None else [bias])),
                channels=int(network.tensors[tensor].shape[made]),
                atoms=atoms,
                reason=reason,
            )
        )
    return layers


def _counts(network: Network, widths: Widths) -> tuple[dict[str, float], dict[str, float]]:
    """Return FLOPs by call and parameters by tensor at these widths."""
    cost = network.cost
    values = cost.terms(widths)
    found = []
    for kind in ("flops", "params"):
        at, counts = cost.kinds[kind], dict[str, float]()
        for name, value in zip(cost.nodes[at], values[at].tolist(), strict=True):
            counts[name] = counts.get(name, 0.0) + value
        found.append(counts)
    return found[0], found[1]


def _elsewhere(network: Network, flops: Mapping[str, float], inside: set[str]) -> dict[str, float]:
    operators = {
        node.name: operator_name(node.target)
        for node in network.trace.graph.nodes
        if node.op == "call_function"
    }
    found: dict[str, float] = {}
    for name, value in flops.items():
        if name not in inside:
            operator = operators.get(name, name)
            found[operator] = found.get(operator, 0.0) + value
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _group_names(network: Network) -> list[str]:
    """Return the name of the channel group of every atom."""
    return [group.name for group in network.coupling.groups for _ in range(group.width)]


def _named(atoms: Atoms, group_of: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(group_of[at] for at in np.unique(atoms[atoms != STAYS]).tolist()))


def _mean(atoms: Atoms | None, saliency: NDArray[np.float64]) -> float | None:
    if atoms is None:
        return None
    found = saliency[np.unique(atoms[atoms != STAYS])]
    return None if np.isnan(found).any() else float(found.mean())
