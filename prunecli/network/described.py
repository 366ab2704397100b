"""What reports say of a traced network: its costs, its groups, what is frozen, what to know."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from prunecli.graph.operators import is_written
from prunecli.report import CutCost, FrozenReport, GroupReport, PruneReport
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from prunecli.cost.model import CostModel, Widths
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.report import Verified


def cut_cost(cost: CostModel, widths: Widths) -> CutCost:
    """Return the costs before and after, and the fraction kept of each."""
    before, after = cost.dense, cost.cost(widths)
    return CutCost(
        before=cost.report_dense(),
        after=cost.report(widths),
        kept={kind: after[kind] / before[kind] if before[kind] else 1.0 for kind in before},
    )


def frozen_reports(network: Network) -> tuple[FrozenReport, ...]:
    """Return what the network itself freezes, with the share of FLOPs of those layers."""
    cost = network.cost
    return tuple(
        FrozenReport(
            item.name,
            item.reason,
            item.where,
            cost.share_of_tensors({name for name, _ in item.sites}),
        )
        for item in network.coupling.frozen
    )


def trace_warnings(network: Network) -> list[str]:
    """Say what the trace of a network found that its owner should know."""
    warnings = []
    if network.trace.recorded:
        warnings.append(
            f"torch.export cannot trace this model ({network.trace.recorded}); one real forward "
            "was recorded instead: costs are those of that forward, and only the model's own "
            "module can be cut"
        )
    if network.trace.unused and network.trace.recorded:
        warnings.append(
            f"no forward tried reached {len(network.trace.unused)} parameters "
            f"({network.trace.unused[0]}, ...): an input that does may not fit the pruned model"
        )
    moving = [
        network.trace.tensors[node.name]
        for node in network.trace.graph.nodes
        if node.op == "placeholder"
        and network.trace.tensors.get(node.name) in network.trace.buffers
        and is_written(node)
    ]
    if moving:
        warnings.append(
            f"the forward writes to buffers in evaluation ({', '.join(moving[:3])}): what the "
            "model gives depends on the calls before, of the pruned model as of the original"
        )
    if network.trace.folding is not None:
        folded = tuple(network.trace.folding.tensors)
        count = "1 weight is" if len(folded) == 1 else f"{len(folded)} weights are"
        warnings.append(
            f"{count} computed from others in the forward, as weight standardisation and weight "
            f"norm do ({folded[0]}{', ...' if len(folded) > 1 else ''}): folded into plain ones"
        )
    warnings.extend(
        f"{reason} ({counted(count, 'call')}): the channels that it touches are frozen"
        for reason, count in network.coupling.unfollowed.items()
    )
    return warnings


def rebuilt_warnings(network: Network) -> list[str]:
    """Say what of a model is lost where its graph stands in for it."""
    warnings = []
    model, given = network.model, len(network.trace.example)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [
        name
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.kind not in kinds
    ]
    if len(named) > given:
        warnings.append(
            f"the pruned model is rebuilt from its graph, which takes {', '.join(named[:given])} "
            f"alone and not {', '.join(named[given:])}: give the example inputs that it is to take"
        )
    own = sorted(name for name, value in vars(model).items() if _is_object(name, value))
    if own:
        warnings.append(
            f"the pruned model is rebuilt from its graph and has no attribute {' nor '.join(own)} "
            "of the original"
        )
    return warnings


def _is_object(name: str, value: Any) -> bool:
    """Tell whether an attribute of a module is an object that its user may ask for: `config`."""
    is_plain = value is None or isinstance(value, int | float | str | list | tuple | dict | set)
    is_hidden = name.startswith("_") or is_plain or callable(value)
    return not is_hidden and not isinstance(value, torch.Tensor | torch.device | torch.dtype)


def group_reports(
    network: Network, widths: Widths, importance: NDArray[np.float64] | None = None
) -> tuple[GroupReport, ...]:
    """Return every group with its width before and after."""
    flops, params = network.cost.share("flops"), network.cost.share("params")
    return tuple(
        GroupReport(
            group.name,
            group.width,
            int(widths[at]),
            float(flops[at]),
            float(params[at]),
            group.exact,
            None if importance is None else float(importance[at]),
        )
        for at, group in enumerate(network.coupling.groups)
    )


def prune_report(
    network: Network,
    options: PruneOptions,
    *,
    plan: Mapping[str, Any],
    cost: CutCost,
    frozen: tuple[FrozenReport, ...],
    mode: str,
    seconds: Mapping[str, float],
    architecture: str = "",
    verified: Verified | None = None,
    warnings: Iterable[str] = (),
) -> PruneReport:
    """Return what every report of a pruned network says, whatever was taken out of it."""
    return PruneReport(
        output=None,
        plan=plan,
        cost=cost,
        verified=verified,
        groups=(),
        frozen=frozen,
        architecture=architecture or type(network.model).__name__,
        mode=mode,
        classifier=network.is_classifier,
        signal=options.signal,
        allocation=options.allocation,
        align="auto" if options.align is None else str(options.align),
        seconds=dict(seconds),
        warnings=(*warnings, *(() if verified is None else verified.limits)),
    )
