"""Learning what to prune, as a way of pruning: a search in gates or by a penalty, then a cut.

Common to all of these methods, and ours: gates sit on the weights that read a channel, at the sites
that the proof zeroes, so that masked equals cut; they begin spread by the saliency of the channels;
and the search ends with as many channels as the budget allows.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.errors import GraphError, InputError
from prunecli.gating.bank import GateBank, add_gates_, sites_of
from prunecli.gating.choose import gateable
from prunecli.methods.learning.method import LearnedPruning
from prunecli.methods.learning.search import make_search
from prunecli.methods.training_options import check_learns, training_of
from prunecli.pruning.scoring import check_signal, score_network
from prunecli.pruning.selection import select
from prunecli.report import LearningReport
from prunecli.signals import needs_data
from prunecli.training.devices import precision_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prunecli.data import ImageSet
    from prunecli.methods.learning.rule import Rule
    from prunecli.methods.road import Change
    from prunecli.methods.setup import Setup
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
        gated, ungated = self._gateable(setup)
        if not gated.any():
            first = next(iter(ungated.items()), ("", ""))
            raise GraphError(
                "no channel group of this model can have gates",
                code="NOTHING_TO_CUT",
                where=": ".join(first),
                hint="use --method one-shot, which cuts more kinds of groups",
            )
        report = LearningReport(
            method=setup.options.method,
            epochs=recipe.options.epochs,
            search_epochs=round(self._steps(setup.options, recipe) / recipe.steps_per_epoch, 3),
            gates=int(gated.sum()),
            ungated=ungated,
            precision=precision_of(recipe.accelerator),
        )
        return {"learning": report}

    def begin(self, setup: Setup, recipe: Recipe) -> LearnedPruning:
        """Score the channels, and put gates into the traced network."""
        network = setup.network
        gated, ungated = self._gateable(setup)
        setup = dataclasses.replace(setup, held={**setup.held, **ungated})
        saliency = score_network(network, setup.options, batches=setup.images.scored_on)
        device = recipe.accelerator.device
        saliency = recipe.processes.from_main(torch.as_tensor(saliency)).numpy()
        seen = np.where(np.isnan(saliency), 0.0, saliency)
        widths = select(network, seen, setup.budget, _uneven(setup.options), held=setup.held).widths
        search = make_search(
            setup,
            gated,
            seen,
            widths,
            steps=self._steps(setup.options, recipe),
            device=device,
        )
        rule = self.rule(search)
        module, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
        if self.rule.gated:
            sites = sites_of(network.coupling, gated)
            bank = GateBank(sites, gated, trained=rule.trained, tested=rule.tested)
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
        return {
            "learning": dataclasses.replace(
                run,
                kept=method.left(method.widths),
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

    def _gateable(self, setup: Setup) -> tuple[NDArray[np.bool_], dict[str, str]]:
        """Return which atoms can be chosen, and why groups cannot: gates, or a blind signal."""
        held, network, options = dict(setup.held), setup.network, setup.options
        if self.rule.by_weights:
            unseen = np.isnan(score_network(network, options))
            if unseen.all():
                raise self.rule.blind(network, options)
            for group in network.coupling.groups:
                if unseen[group.atoms].any():
                    blind = f"the signal {options.signal} cannot see its channels"
                    held.setdefault(group.name, blind)
        return gateable(network, held, by_gates=self.rule.gated)

    def _steps(self, options: PruneOptions, recipe: Recipe) -> int:
        """Return the steps of the search: one at least, and one at least is left after it."""
        share = options.training.search or self.rule.search
        return min(max(round(share * recipe.steps), 1), max(recipe.steps - 1, 1))


def _uneven(options: PruneOptions) -> PruneOptions:
    """Return the options of the cut at once that a search begins from: costs count."""
    return dataclasses.replace(options, allocation="greedy")
