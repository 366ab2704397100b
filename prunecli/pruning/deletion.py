"""`--delete-blocks`: leave out residual blocks where that is worth more than thin ones.

At a small budget every block gets thin, and a network with fewer blocks may do more with the same
cost. With images, blocks are tried in the order of the loss that the dense network has without
each, per cost that goes with it. Each trial is what the user would get (the budget handed out anew,
cut, repaired), and a block goes where that lowers the loss on held-out images. Without images a
block goes when the allocation leaves it no more than `THIN` of its inner channels.
Both rules are ours. That blocks without outputs vanish is in Lemaire et al. 2019, arXiv 1811.09332.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from prunecli.cost.kinds import LATENCY
from prunecli.errors import GateError, GraphError
from prunecli.evaluation.batches import Images, first_images
from prunecli.evaluation.scores import TEMPERATURES, score_on
from prunecli.graph.coupling.groups import STAYS
from prunecli.graph.coupling.matching import atoms_in
from prunecli.importance import importance_of
from prunecli.progress import Progress, Step, silent
from prunecli.pruning.selection import select
from prunecli.pruning.trial import try_cut
from prunecli.report import BlockReport, BlocksReport, BlockTrial
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from prunecli.allocation import Saliency
    from prunecli.budget import Budget
    from prunecli.cost.model import Widths
    from prunecli.graph.blocks import Block
    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions

THIN = 1 / 8
"""A block that keeps no more than this of its inner channels is deleted where no image decides."""

RANKED_ON = 512
"""Images on which the loss without each block is measured."""

PATIENCE = 3
"""Blocks in a row that do not lower the loss before no more are tried."""

STAND_IN = ("bn",)
"""What a trial is repaired with where nothing is asked for: right after a cut, all is chance."""

WIDTHS = "widths"
"""What reports say decided where no images did."""


@dataclass(frozen=True)
class Deletion:
    """The network without the blocks that were chosen, its saliencies, and how that came about."""

    network: Network
    saliency: Saliency
    importance: NDArray[np.float64] | None
    report: BlocksReport
    warnings: tuple[str, ...] = ()


def delete_blocks(
    network: Network,
    saliency: Saliency,
    budget: Budget,
    options: PruneOptions,
    *,
    images: Images,
    progress: Progress = silent,
) -> Deletion:
    """Return the network without the blocks that are worth less than what they cost.

    `saliency` has one number per atom of `network`. Raises `GraphError` (`NO_BLOCKS`) for a network
    without residual blocks that could go.
    """
    start = time.perf_counter()
    candidates = _candidates(network, options)
    search = _Search(network, saliency, budget, options, images, progress)
    with_images = images.judged_on is not None
    chosen, trials = search.by_loss(candidates) if with_images else (search.thin(candidates), [])
    left = search.without(chosen)
    report = BlocksReport(
        deleted=block_reports(network, left.network.deleted),
        found=len(network.blocks),
        measured=images.measured if with_images else WIDTHS,
        trials=tuple(trials),
        images=max((trial.score.images for trial in trials if trial.score is not None), default=0),
        seconds=round(time.perf_counter() - start, 3),
    )
    importance = importance_of(
        left.network, left.saliency, options, images.scored_on, progress=progress
    )
    return Deletion(left.network, left.saliency, importance, report, _none_went(report))


def block_reports(network: Network, blocks: Iterable[Block]) -> tuple[BlockReport, ...]:
    """Return what blocks of a network are made of, and the shares of cost that go with each."""
    return tuple(
        BlockReport(
            block.name,
            block_layers(network, block),
            block_share(network, block, "flops"),
            block_share(network, block, "params"),
        )
        for block in blocks
    )


def block_layers(network: Network, block: Block) -> tuple[str, ...]:
    """Return the layers of a block that make channels, or scale them as a weight of their own."""
    return tuple(
        name.removesuffix(".weight") for name in block.tensors if network.tensors[name].dim() > 1
    )


def block_share(network: Network, block: Block, kind: str) -> float:
    """Return the share of a cost of the dense network that goes with a block alone."""
    cost = network.cost
    inner = {group.name for group in network.coupling.groups if _is_inner(group, block)}
    own = {*block.nodes, *block.tensors, *inner}
    at = cost.kinds[kind]
    values = cost.terms(cost.dense_widths)[at]
    gone = [name in own for name in cost.nodes[at]]
    return float(values[gone].sum() / (cost.dense[kind] or 1.0))


def _candidates(network: Network, options: PruneOptions) -> list[Block]:
    """Return the blocks that may go; raise `GraphError` where there is none."""
    if not network.blocks:
        reason = network.trace.recorded
        raise GraphError(
            "0 residual blocks can be deleted: no branch of this model joins a stream of the same "
            "shape, feeds nothing else, and ends in weights that can be zero",
            code="NO_BLOCKS",
            where=f"only one forward was recorded: {reason}" if reason else None,
            hint="leave --delete-blocks out; channels can be removed without it",
        )
    allowed = [block for block in network.blocks if _may_go(block_layers(network, block), options)]
    if not allowed:
        raise GraphError(
            f"0 of {counted(len(network.blocks), 'residual block')} can be deleted: --exclude and "
            "--only keep all of them",
            code="NO_BLOCKS",
            hint="leave --delete-blocks out, or name other layers; a block may go where --only "
            "names all of its layers and --exclude none",
        )
    return allowed


def _may_go(layers: Sequence[str], options: PruneOptions) -> bool:
    def named(layer: str, patterns: Sequence[str]) -> bool:
        return any(fnmatch.fnmatchcase(layer, pattern) for pattern in patterns)

    if any(named(layer, options.exclude) for layer in layers):
        return False
    return not options.only or all(named(layer, options.only) for layer in layers)


def _none_went(report: BlocksReport) -> tuple[str, ...]:
    if report.deleted:
        return ()
    found = counted(report.found, "residual block")
    if report.measured == WIDTHS:
        why = f"each of {found} keeps more than {THIN:.1%} of its inner channels"
        return (f"no block was deleted: {why} (with --data, the loss on images decides)",)
    tried = counted(len(report.trials) - 1, "block")
    said = (
        f"no block was deleted: {tried} of {found} tried, and none lowers the loss on images at "
        "this budget"
    )
    return (said,)


@dataclass(frozen=True)
class _Left:
    """A network without some blocks, and what its channels are worth in the whole one."""

    network: Network
    saliency: Saliency


@dataclass(frozen=True)
class _Search:
    """What blocks are chosen by; `saliency` is that of the atoms of the whole `network`."""

    network: Network
    saliency: Saliency
    budget: Budget
    options: PruneOptions
    images: Images
    progress: Progress

    def without(self, blocks: Sequence[Block]) -> _Left:
        """Return the network without some blocks; its channels are worth what they were."""
        network = self.network.without(blocks)
        if network is self.network:
            return _Left(network, self.saliency)
        atoms = atoms_in(self.network.coupling, network.coupling)
        worth = np.where(atoms == STAYS, np.nan, np.append(self.saliency, np.nan)[atoms])
        return _Left(network, worth)

    # --- with images ------------------------------------------------------------------------------

    def by_loss(self, candidates: Sequence[Block]) -> tuple[list[Block], list[BlockTrial]]:
        """Return the blocks whose deletion lowers the loss at the budget, and all trials."""
        ranked = self._ranked(candidates)
        chosen: list[Block] = []
        best = self._trial(chosen, 0, len(ranked))
        trials, refused = [best], 0
        for at, block in enumerate(ranked, 1):
            tried = self._trial([*chosen, block], at, len(ranked))
            trials.append(tried)
            if _loss(tried) < _loss(best) or not np.isfinite(_loss(best)):
                chosen, best, refused = [*chosen, block], tried, 0
            else:
                refused += 1
            if refused == PATIENCE:
                break
        return chosen, trials

    def _ranked(self, candidates: Sequence[Block]) -> list[Block]:
        """Return blocks in the order of the loss without each alone, per cost that goes with it."""
        batches = self.images.scored_on or self.images.judged_on
        assert batches is not None
        whole, _ = self.network.graph_network(np.ones(self.network.coupling.atom_count, np.bool_))

        def loss(zeroed: Sequence[str]) -> float:
            tensors = {name: torch.zeros_like(whole.get_parameter(name)) for name in zeroed}
            found = score_on(
                whole,
                lambda: first_images(batches, RANKED_ON),
                tensors=tensors,
                temperatures=TEMPERATURES,
            )
            assert found.calibrated is not None
            return found.calibrated

        dense = loss(())
        price = {}
        for at, block in enumerate(candidates):
            self.progress(Step("rank blocks", at, len(candidates)))
            price[block.name] = (loss(block.zeroed) - dense) / max(self._saved(block), 1e-12)
        return sorted(candidates, key=lambda block: price[block.name])

    def _saved(self, block: Block) -> float:
        """Return the share of the limited costs that goes with a block; the largest counts."""
        return max(self._share(block, limit.kind) for limit in self.budget.limits)

    def _share(self, block: Block, kind: str) -> float:
        if kind != LATENCY:
            return block_share(self.network, block, kind)
        left = self.network.without([block]).cost
        return 1 - left.cost(left.dense_widths)[LATENCY] / left.dense[LATENCY]

    def _trial(self, blocks: Sequence[Block], at: int, count: int) -> BlockTrial:
        names = tuple(block.name for block in blocks)
        facts: dict[str, float | str] = {"without": names[-1]} if names else {}
        self.progress(Step("try blocks", at, count, facts))
        left = self.without(blocks)
        options = dataclasses.replace(self.options, repair=self.options.repair or STAND_IN)
        tried = try_cut(
            left.network,
            left.saliency,
            budget=self.budget,
            options=options,
            images=self.images,
            importance=importance_of(left.network, left.saliency, options, self.images.scored_on),
        )
        return BlockTrial(names, tried.final, tried.problem)

    # --- without images ---------------------------------------------------------------------------

    def thin(self, candidates: Sequence[Block]) -> list[Block]:
        """Return the blocks that the budget leaves next to nothing of, the thinnest first.

        The budget is handed out anew after each. Where it cannot be reached at all, the block goes
        of which the channels are worth least per cost.
        """
        chosen: list[Block] = []
        while rest := [block for block in candidates if block not in chosen]:
            left = self.without(chosen)
            importance = importance_of(left.network, left.saliency, self.options, None)
            try:
                widths = select(
                    left.network,
                    left.saliency,
                    self.budget,
                    self.options,
                    held={},
                    importance=importance,
                ).widths
            except GateError:
                chosen.append(min(rest, key=self._worth))
                continue
            shares = {block.name: inner_share(left.network, block, widths) for block in rest}
            thinnest = min(rest, key=lambda block: shares[block.name])
            if shares[thinnest.name] > THIN:
                break
            chosen.append(thinnest)
        return chosen

    def _worth(self, block: Block) -> float:
        own = [group.atoms for group in self.network.coupling.groups if _is_inner(group, block)]
        total = sum(float(np.nansum(self.saliency[atoms])) for atoms in own)
        return total / max(self._saved(block), 1e-12)


def inner_share(network: Network, block: Block, widths: Widths) -> float:
    """Return the smallest share of its channels that a group made inside of a block keeps."""
    groups = network.coupling.groups
    shares = [
        width / group.width
        for group, width in zip(groups, widths.tolist(), strict=True)
        if _is_inner(group, block)
    ]
    return min(shares, default=1.0)


def _is_inner(group: ChannelGroup, block: Block) -> bool:
    producers = {name for name, _ in group.producers}
    return producers <= set(block.tensors)


def _loss(trial: BlockTrial) -> float:
    return float("inf") if trial.score is None else trial.score.calibrated
