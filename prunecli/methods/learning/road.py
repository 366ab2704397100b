"""Learning what to prune, as a way of pruning: a search in gates or by a penalty, then a cut.

Common to all of these methods, and ours: gates sit on the weights that read a channel, at the sites
that the proof zeroes, so that masked equals cut; they begin spread by the saliency of the channels;
and the search ends with as many channels as the budget allows.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.errors import GraphError, InputError
from prunecli.gating.bank import GateBank, add_gates_
from prunecli.gating.choose import gateable
from prunecli.gating.places import places_of
from prunecli.methods.learning.method import LearnedPruning
from prunecli.methods.learning.search import make_search
from prunecli.methods.learning.streams import make_streams
from prunecli.methods.learning.written import blocks_report
from prunecli.methods.training_options import check_learns, training_of
from prunecli.pruning.scoring import check_signal, score_network
from prunecli.pruning.selection import select, why_whole
from prunecli.report import LearningReport
from prunecli.signals import needs_data
from prunecli.training.devices import precision_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prunecli.data import ImageSet
    from prunecli.gating.bank import Places
    from prunecli.methods.learning.rule import Rule
    from prunecli.methods.learning.streams import Streams
    from prunecli.methods.road import Change
    from prunecli.methods.setup import Setup
    from prunecli.network.traced import Network
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.training.recipe import Recipe
    from prunecli.training.session import Session

EPOCHS = 10
"""Epochs of a method that learns what to prune, where nobody says how many."""


class Learning:
    """A way to learn what to prune, by its rule."""

    scored: int | None = None

    def __init__(self, rule: type[Rule]) -> None:
        self.rule = rule

    def check(self, options: PruneOptions) -> None:
        """Raise `InputError` for options that a search cannot follow."""
        check_learns(options)
        check_signal(options.signal)
        if self.rule.by_weights and needs_data(options.signal):
            raise InputError(
                f"the method {options.method} scores channels by their weights as they train, and "
                f"the signal {options.signal} looks at images",
                code="BAD_OPTION",
                where="--signal",
                hint="use a signal of the weights alone (l1, l2, bn-gamma), or leave --signal out",
            )
        self.rule.check(options)
        self.training(options)

    def training(self, options: PruneOptions) -> FinetuneOptions:
        """Return how the weights are trained: as in a fine-tuning of all epochs."""
        return training_of(options, epochs=options.training.epochs or EPOCHS)

    def round_steps(self, options: PruneOptions) -> int | None:  # noqa: ARG002
        """Return None: rounds are epochs."""
        return None

    def planned(self, setup: Setup, recipe: Recipe, held_out: ImageSet) -> dict[str, Any]:  # noqa: ARG002
        """Return how long the search is, and which channel groups have gates."""
        field = self._field(setup)
        if not field.gated.any():
            first = next(iter(field.ungated.items()), ("", ""))
            raise GraphError(
                "no channel group of this model can have gates",
                code="NOTHING_TO_CUT",
                where=": ".join(first),
                hint="use --method one-shot, which cuts more kinds of groups",
            )
        if field.streams is not None:
            count = field.network.coupling.atom_count
            make_search(
                setup,
                field.gated,
                np.zeros(count),
                field.network.cost.dense_widths,
                steps=1,
                device=torch.device("cpu"),
                streams=field.streams,
            ).check_reachable()
        report = LearningReport(
            method=setup.options.method,
            epochs=recipe.options.epochs,
            search_epochs=round(self._steps(setup.options, recipe) / recipe.steps_per_epoch, 3),
            gates=int(field.gated.sum()),
            ungated=field.ungated,
            precision=precision_of(recipe.accelerator),
        )
        return {"learning": report}

    def begin(self, setup: Setup, recipe: Recipe) -> LearnedPruning:
        """Score the channels, and put gates into the traced network."""
        field = self._field(setup)
        setup = dataclasses.replace(setup, held={**setup.held, **field.ungated})
        device = recipe.accelerator.device

        def scores(network: Network) -> NDArray[np.float64]:
            found = score_network(network, setup.options, batches=setup.images.scored_on)
            same = recipe.processes.from_main(torch.as_tensor(found)).numpy()
            return np.where(np.isnan(same), 0.0, same)

        seen = scores(setup.network)
        held = {name: why for name, why in setup.held.items() if name in _names(setup.network)}
        options = _uneven(setup.options)
        widths = select(setup.network, seen, setup.budget, options, held=held).widths
        if field.streams is not None:
            widths = field.streams.widths_like(seen, widths)
            seen = scores(field.network)
        search = make_search(
            setup,
            field.gated,
            seen,
            widths,
            steps=self._steps(setup.options, recipe),
            device=device,
            streams=field.streams,
        )
        rule = self.rule(search)
        network = field.network
        module, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
        if self.rule.gated:
            bank = GateBank(
                field.places(setup.options.training.gates_at),
                field.gated,
                trained=rule.trained,
                tested=rule.tested,
                slots=None if field.streams is None else field.streams.hard,
            )
            bank.logits.requires_grad_(self.rule.learns)
            add_gates_(module, bank)
        return LearnedPruning(search, rule, module)

    def told(
        self,
        planned: Mapping[str, Any],
        method: LearnedPruning,
        session: Session,
        change: Change,
    ) -> dict[str, Any]:
        """Return the course of the search and what came of it."""
        run: LearningReport = planned["learning"]
        best = session.best
        streams = method.search.streams
        told = {} if streams is None else {"blocks": blocks_report(streams, method.choice)}
        return told | {
            "learning": dataclasses.replace(
                run,
                kept=method.left,
                accuracy=change.accuracy,
                loss=change.loss,
                images=change.images,
                best_epoch=None if best is None else best.epoch,
                max_rel_error=method.error,
                course=method.course,
                log=session.log,
                shares=session.shares,
            ),
            "allocation": "global",
        }

    def _field(self, setup: Setup) -> Field:
        """Return which atoms can be chosen, and why groups cannot: gates, or a blind signal."""
        held, network, options = dict(setup.held), setup.network, setup.options
        if options.training.mixed_connectivity:
            streams = make_streams(network)
            saliency = np.zeros(streams.network.coupling.atom_count)
            held |= streams.held() | why_whole(streams.network, saliency, options)
            gated, ungated = gateable(streams.network, held, written=streams.made)
            return Field(streams.network, gated, ungated, streams)
        if self.rule.by_weights:
            unseen = np.isnan(score_network(network, options))
            if unseen.all():
                raise self.rule.blind(network, options)
            for group in network.coupling.groups:
                if unseen[group.atoms].any():
                    blind = f"the signal {options.signal} cannot see its channels"
                    held.setdefault(group.name, blind)
        return Field(network, *gateable(network, held, by_gates=self.rule.gated))

    def _steps(self, options: PruneOptions, recipe: Recipe) -> int:
        """Return the steps of the search: one at least, and one at least is left after it."""
        share = options.training.search or self.rule.search
        return min(max(round(share * recipe.steps), 1), max(recipe.steps - 1, 1))


@dataclass(frozen=True)
class Field:
    """What a search runs over: the network, which of its atoms can be chosen, why others cannot."""

    network: Network
    gated: NDArray[np.bool_]
    ungated: Mapping[str, str]
    streams: Streams | None = None

    def places(self, where: str) -> Places:
        """Return where the gates are."""
        if self.streams is not None:
            return self.streams.places(self.gated, where)
        return places_of(self.network, self.gated, where)


def _names(network: Network) -> set[str]:
    return {group.name for group in network.coupling.groups}


def _uneven(options: PruneOptions) -> PruneOptions:
    """Return the options of the cut at once that a search begins from: costs count."""
    return dataclasses.replace(options, allocation="greedy")
