"""Dynamic channel execution, as a way of pruning: a share of every group runs, then stays."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from prunecli.allocation import ceilings_of
from prunecli.errors import InputError
from prunecli.evaluation.images import evaluate
from prunecli.methods.dynamic.groups import uniform_widths
from prunecli.methods.dynamic.method import DynamicChannels
from prunecli.methods.dynamic.settings import DynamicOptions
from prunecli.methods.learning.road import EPOCHS
from prunecli.methods.training_options import check_learns, training_of
from prunecli.options.methods import DYNAMIC, METHOD_DEFAULTS
from prunecli.options.shared import AGGREGATE
from prunecli.report import AccuracyChange, LearningReport
from prunecli.training.devices import precision_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from prunecli.data import ImageSet
    from prunecli.methods.road import Change
    from prunecli.methods.setup import Setup
    from prunecli.options import FinetuneOptions, PruneOptions
    from prunecli.pruning.selection import Selection
    from prunecli.training.recipe import Recipe
    from prunecli.training.session import Session


class Dynamic:
    """Execute a share of the channels, chosen anew in every step; keep the best, and train on."""

    scored: int | None = None

    def __init__(self, settings: DynamicOptions | None = None) -> None:
        self.settings = settings or DynamicOptions()
        self.original: nn.Module | None = None

    def check(self, options: PruneOptions) -> None:
        """Raise `InputError` for options that dynamic execution cannot follow."""
        check_learns(options)
        _check_rewards(options)
        self._settings(options).check()
        self.training(options)

    def training(self, options: PruneOptions) -> FinetuneOptions:
        """Return how the weights are trained: as in a fine-tuning of all epochs."""
        return training_of(options, epochs=options.training.epochs or EPOCHS)

    def round_steps(self, options: PruneOptions) -> int | None:  # noqa: ARG002
        """Return None: rounds are epochs."""
        return None

    def planned(self, setup: Setup, recipe: Recipe, held_out: ImageSet) -> dict[str, Any]:  # noqa: ARG002
        """Return how long the search is, of how many channels, and what stays whole."""
        selection = _selection(setup)
        dense = setup.network.cost.dense_widths
        share = self._settings(setup.options).search
        report = LearningReport(
            method=setup.options.method,
            epochs=recipe.options.epochs,
            search_epochs=round(share * recipe.options.epochs, 3),
            gates=int(dense[selection.widths < dense].sum()),
            ungated={item.name: item.reason for item in selection.whole},
            precision=precision_of(recipe.accelerator),
        )
        return {"learning": report}

    def begin(self, setup: Setup, recipe: Recipe) -> DynamicChannels:  # noqa: ARG002
        """Return the method with the widths that keep the budget."""
        selection = _selection(setup)
        # The first score of the run is that of a few of its channels: this is the model's own.
        self.original = copy.deepcopy(setup.network.model)
        settings, seed = self._settings(setup.options), setup.options.seed
        method = DynamicChannels(setup.network, selection.widths, settings, seed)
        method.selection = selection
        dense = setup.network.cost.dense
        method.kind, ceiling = next(iter(ceilings_of(setup.budget, dense).items()))
        method.target = ceiling / dense[method.kind]
        return method

    def told(
        self,
        planned: Mapping[str, Any],
        method: DynamicChannels,
        session: Session,
        change: Change,
    ) -> dict[str, Any]:
        """Return the course of the search and what came of it."""
        assert self.original is not None
        run, best = session.run, session.best
        before = evaluate(
            self.original,
            session.held_out,
            input=session.recipe.input,
            device=run.device,
            processes=session.recipe.processes,
        )
        report: LearningReport = planned["learning"]
        searched = (method.frozen_after or 0) / session.recipe.steps_per_epoch
        return {
            "learning": dataclasses.replace(
                report,
                search_epochs=round(searched, 3),
                kept=method.share(method.kind),
                accuracy=AccuracyChange(before.accuracy, change.accuracy.after, before.split),
                loss=(before.loss, change.loss[1]),
                images=change.images,
                best_epoch=None if best is None else best.epoch,
                max_rel_error=method.error,
                course=method.course,
                log=session.log,
                shares=session.shares,
            ),
            "allocation": "uniform",
        }

    def _settings(self, options: PruneOptions) -> DynamicOptions:
        own = options.training
        settings = dataclasses.replace(self.settings, explore=own.explore)
        return settings if own.search is None else dataclasses.replace(settings, search=own.search)


def _check_rewards(options: PruneOptions) -> None:
    """Raise `InputError` for a criterion of another kind: rewards are what they are."""
    usual = {"signal": METHOD_DEFAULTS[DYNAMIC]["signal"], "aggregate": AGGREGATE}
    for name, value in usual.items():
        if getattr(options, name) != value:
            raise InputError(
                f"--{name} {getattr(options, name)} has no effect with --method {DYNAMIC}: its "
                "channels are chosen by the Taylor saliency of those that ran",
                code="OPTION_WITHOUT_EFFECT",
                where=f"--{name}",
                hint=f"leave --{name} out",
            )


def _selection(setup: Setup) -> Selection:
    return uniform_widths(setup.network, setup.budget, setup.options, held=setup.held)
