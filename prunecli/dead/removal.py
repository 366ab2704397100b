"""The network that `prune --dead` goes on with: without dead channels, by the user's choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prunecli.dead import Dead, Kept, find_dead, without_dead
from prunecli.errors import GraphError
from prunecli.network.patterns import matches
from prunecli.wording import counted, verb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prunecli.allocation import Saliency
    from prunecli.evaluation.batches import Images
    from prunecli.network.traced import Network
    from prunecli.options import PruneOptions
    from prunecli.progress import Clock
    from prunecli.report import DeadReport

FAST = 4
"""ONNX Runtime's kernels on a CPU are slow off multiples of this (`cost.alignment`)."""


@dataclass(frozen=True)
class WithoutDead:
    """The dense network in which nothing reads the channels `gone`, and what was found."""

    network: Network
    gone: NDArray[np.bool_]
    report: DeadReport | None = None
    warnings: tuple[str, ...] = ()
    dead: Dead | None = None

    def ranked(self, saliency: Saliency) -> Saliency:
        """Return the saliencies as a budget should see them, one per atom.

        Dead channels that stay for a width are worth the least of their group, and those of which a
        constant is needed the most: no signal of their own weights would tell.
        """
        if self.dead is None:
            return saliency
        saliency = saliency.copy()
        settled = self.dead.settled
        needed = np.zeros_like(self.gone)
        needed[np.asarray(list(settled.stays), np.int64)] = True
        for group in self.network.coupling.groups:
            own = saliency[group.atoms]
            alive = own[~settled.gone[group.atoms]]
            if alive.size:
                own[needed[group.atoms]] = alive.max()
                own[settled.gone[group.atoms]] = min(alive.min(), own.min())
        return saliency


def living_network(
    network: Network,
    options: PruneOptions,
    *,
    limited: bool,
    images: Images,
    clock: Clock,
) -> WithoutDead:
    """Return the network without its dead channels; as it is where they are not asked for.

    `limited` says that a budget cuts more. Raises `GraphError` (`NOTHING_DEAD`) where nothing is
    dead and nothing else is to be cut.
    """
    nothing = np.zeros(network.coupling.atom_count, np.bool_)
    if not options.dead:
        return WithoutDead(network, nothing)

    stays = frozenset(
        group.name
        for group in network.coupling.groups
        if (options.only and not matches(group, options.only)) or matches(group, options.exclude)
    )
    with clock.stage("dead"):
        dead = find_dead(
            network,
            batches=images.scored_on,
            threshold=options.dead_threshold,
            kept=Kept(stays, options.align or 1, options.min_width),
            seed=options.seed,
            progress=clock.progress,
        )
        if not dead.gone.any():
            if not limited:
                raise _nothing_dead(dead)
            return WithoutDead(network, nothing, dead.report, (f"no dead channel: {_found(dead)}",))
        after, report = without_dead(network, dead, images=images)
    return WithoutDead(after, dead.gone, report, dead=dead)


def _nothing_dead(dead: Dead) -> GraphError:
    stays = {reason for group in dead.report.groups for reason in group.stays.values()}
    return GraphError(
        "nothing was cut: no channel is dead, or those that are have to stay",
        code="NOTHING_DEAD",
        where="; ".join((_found(dead), *sorted(stays))),
        hint="a --dead-threshold above 0 finds channels that hardly matter; --flops cuts others",
    )


def _found(dead: Dead) -> str:
    count = sum(group.dead for group in dead.report.groups)
    looked = f"{dead.report.images} images" if dead.report.images else "the weights alone"
    return f"{count} of {dead.report.channels} channels on {looked}"


def slow_widths(living: WithoutDead, widths: NDArray[np.int64], options: PruneOptions) -> list[str]:
    """Say how many groups without their dead channels keep widths that a CPU does not like.

    `widths` are those of the cut network; a budget chooses fast ones only where it cuts.
    """
    if options.align is not None:
        return []
    odd = sum(
        bool(living.gone[group.atoms].any()) and width * group.multiplicity % FAST > 0
        for group, width in zip(living.network.coupling.groups, widths.tolist(), strict=True)
    )
    if not odd:
        return []
    said = (
        f"{counted(odd, 'group')} {verb(odd, 'is', 'are')} left with a width that is no multiple "
        f"of {FAST}, which may be slower than before on a CPU; --align {FAST} lets dead channels "
        "stay for that"
    )
    return [said]
