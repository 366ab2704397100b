"""The road of single weights: score, allocate, mask, prove. No files, no screen."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.checkpoint.compact import pack
from prunecli.cost.sizes import tensor_bytes
from prunecli.cutting.surgery import cut_module
from prunecli.errors import InputError
from prunecli.evaluation.batches import NO_IMAGES, Images
from prunecli.graph.tracing.running import evaluating
from prunecli.network.described import prune_report
from prunecli.options.granularity import Pattern, parse_pattern
from prunecli.preflight.pruning import check_share_of_weights, check_weights_at_once
from prunecli.progress import Clock, silent
from prunecli.report import Cost, CutCost, FrozenReport, PruneReport, SparsityReport
from prunecli.sparse.allocation import WEIGHT_ALLOCATIONS
from prunecli.sparse.batch_norm_repair import check_norms_repair, repair_norms_
from prunecli.sparse.layers import WeightLayer, held_fast, weight_layers
from prunecli.sparse.masks import (
    apply_masks_,
    masks_of_pattern,
    masks_of_sparsity,
    sparsity_report,
    unfit,
    with_all_names,
)
from prunecli.sparse.proof import prove_masked
from prunecli.sparse.saliency import RANDOM, weight_saliencies, weight_signal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from prunecli.architectures.inputs import InputSpec
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.report import RepairReport, Verified


@dataclass(frozen=True)
class SparseResult:
    """A network with zeroed weights, the masks of what is kept by parameter, and the report.

    For a dry run `model` is None.
    """

    model: nn.Module | None
    masks: Mapping[str, Tensor]
    report: PruneReport
    input: InputSpec | None = None
    """What the network takes, where it is known."""


def sparsify_network(
    network: Network,
    *,
    sparsity: float | None,
    options: PruneOptions,
    masks: Mapping[str, Tensor] | None = None,
    images: Images = NO_IMAGES,
    dry_run: bool = False,
    architecture: str = "",
    clock: Clock | None = None,
) -> SparseResult:
    """Zero the least salient weights of a copy of a network, and prove it equal to dense x mask.

    `sparsity` is the share of the weights of all convolutions and linear layers that is zero
    afterwards; a pattern such as 2:4 (`options.granularity`) has its own, and takes None. `masks`
    are those that the network has already. Raises what `prune_network` raises.
    """
    pattern = parse_pattern(options.granularity)
    check_sparsify(options, sparsity, images)
    clock, before = clock or Clock(silent), masks or {}
    layers = weight_layers(network)
    held = held_fast(layers, exclude=options.exclude, only=options.only)
    if pattern is not None:
        held = {**unfit(layers, pattern), **held}
        _check_any(layers, held, pattern)
    chosen = _chosen(
        network,
        layers,
        held,
        sparsity=sparsity,
        options=options,
        before=before,
        images=images,
        clock=clock,
    )
    everything = with_all_names(network.model, {**before, **chosen})
    slim, verified, repaired = None, None, None
    if not dry_run:
        slim, verified = _masked(network, chosen, everything, clock)
        repaired = _repaired(slim, network, options, images, clock)
    found = sparsity_report(
        layers, everything, granularity=options.granularity,
        point=str(weight_signal(options.signal) or RANDOM), held=held,
    )  # fmt: skip
    report = prune_report(
        network,
        options,
        plan=_plan(found, options),
        cost=sparse_cost(network, slim or network.model, everything, found),
        frozen=_left_dense(network, found),
        mode=options.granularity,
        seconds=clock.seconds,
        architecture=architecture,
        verified=verified,
        warnings=_warnings(found, pattern),
    )
    report = dataclasses.replace(
        report,
        allocation=options.allocation if pattern is None else options.granularity,
        align="none",
        repair=repaired,
        sparsity=found,
    )
    return SparseResult(slim, everything, report)


def check_sparsify(options: PruneOptions, sparsity: float | None, images: Images) -> None:
    """Raise `InputError` for what zeroing weights cannot do, before any work."""
    check_weight_options(options, sparsity)
    check_norms_repair(options.repair, images.scored_on)


def _chosen(
    network: Network,
    layers: Sequence[WeightLayer],
    held: Mapping[str, str],
    *,
    sparsity: float | None,
    options: PruneOptions,
    before: Mapping[str, Tensor],
    images: Images,
    clock: Clock,
) -> dict[str, Tensor]:
    """Return the masks of the weights that are kept, by parameter."""
    with clock.stage("score"):
        saliencies = weight_saliencies(
            network,
            layers,
            options.signal,
            batches=images.scored_on,
            seed=options.seed,
            progress=clock.progress,
        )
    pattern = parse_pattern(options.granularity)
    with clock.stage("allocate"):
        if pattern is not None:
            return masks_of_pattern(layers, saliencies, pattern, held=held, before=before)
        return masks_of_sparsity(
            layers,
            saliencies,
            network.tensors,
            sparsity=sparsity or 0.0,
            allocation=options.allocation,
            held=held,
            before=before,
        )


def _masked(
    network: Network, chosen: Mapping[str, Tensor], everything: Mapping[str, Tensor], clock: Clock
) -> tuple[nn.Module, Verified]:
    """Return a copy of the model with the chosen masks, proven equal to dense x all masks."""
    with clock.stage("cut"):
        slim = cut_module(network.model, {})
        apply_masks_(slim, chosen)
    with clock.stage("prove"):
        return slim, prove_masked(network.model, slim, everything, network.trace.example)


def _repaired(
    slim: nn.Module, network: Network, options: PruneOptions, images: Images, clock: Clock
) -> RepairReport | None:
    """Estimate batch norm anew in place, where that was asked for."""
    if not options.repair or images.scored_on is None:
        return None
    with clock.stage("repair"), evaluating(slim, network.model):
        return repair_norms_(slim, network, images=images, progress=clock.progress)


def check_weight_options(options: PruneOptions, sparsity: float | None) -> None:
    """Raise `InputError` for a choice that means nothing for single weights, before any work."""
    check_weights_at_once(options)
    weight_signal(options.signal)
    if parse_pattern(options.granularity) is None:
        WEIGHT_ALLOCATIONS.get(options.allocation)
    check_share_of_weights(options, sparsity)


def _check_any(layers: Sequence[WeightLayer], held: Mapping[str, str], pattern: Pattern) -> None:
    if len(held) == len(layers):
        first = layers[0]
        raise InputError(
            f"no layer can have the pattern {pattern}: {first.layer}: {held[first.name]}",
            code="NOTHING_TO_CUT",
            hint="zero single weights instead: --granularity weight --sparsity 0.5",
        )


def sparse_cost(
    network: Network, model: nn.Module, masks: Mapping[str, Tensor], found: SparsityReport
) -> CutCost:
    """Return the costs with zeroed weights left out of parameters and bytes, and of nothing else.

    The FLOPs are those of the dense kernels that run the network.
    """
    before = network.cost.report_dense()
    zeroed = found.weights - found.kept
    tensors = model.state_dict()
    packed, _ = pack(tensors, masks)
    saved = tensor_bytes(tensors.values()) - tensor_bytes(packed.values())
    after = Cost(before, params=before.params - zeroed, bytes=before.bytes - saved)
    return CutCost(
        before=before,
        after=after,
        kept={
            name: (after[name] or 0.0) / value if value else 1.0
            for name, value in before.items()
            if value is not None
        },
    )


def _plan(found: SparsityReport, options: PruneOptions) -> dict[str, Any]:
    return {
        "granularity": options.granularity,
        "signal": options.signal,
        "point": found.point,
        "allocation": options.allocation,
        "sparsity": found.sparsity,
        "seed": options.seed,
        "keep": {row.name: row.kept for row in found.layers},
    }


def _left_dense(network: Network, found: SparsityReport) -> tuple[FrozenReport, ...]:
    return tuple(
        FrozenReport(row.name, row.reason, None, network.cost.share_of_tensors({row.name}))
        for row in found.layers
        if row.reason
    )


def _warnings(found: SparsityReport, pattern: Pattern | None) -> tuple[str, ...]:
    dense = [row for row in found.layers if row.reason]
    if pattern is None or not dense:
        return ()
    share = sum(row.weights for row in dense) / found.weights
    told = f"{dense[0].name}: {dense[0].reason}{', ...' if len(dense) > 1 else ''}"
    several = f"{len(dense)} of {len(found.layers)} layers ({share:.1%} of the weights)"
    return (f"{several} stay as they are: {told}",)
