"""The common life of all methods that learn what to prune, as a method of training."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from prunecli.cutting.surgery import cut_tensor, slices_of
from prunecli.errors import InputError
from prunecli.gating.bank import GATES, GateBank
from prunecli.methods.learning.choice import chosen, restored
from prunecli.methods.learning.norms import estimate_norms_
from prunecli.methods.learning.rule import Moment
from prunecli.methods.narrowing import write_back_
from prunecli.methods.selection_state import selection_fields, selection_from
from prunecli.methods.setup import narrower_network
from prunecli.pruning.proven_cut import plan_of
from prunecli.report import CoursePoint
from prunecli.report.cuts import SEARCH, TRAIN
from prunecli.training.loop import WEIGHTS, check_finite, check_weights
from prunecli.training.method import PlainMethod, Replacement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, fx, nn

    from prunecli.cost.model import Widths
    from prunecli.methods.learning.choice import Choice
    from prunecli.methods.learning.rule import Rule
    from prunecli.methods.learning.search import Search
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan
    from prunecli.pruning.selection import Selection
    from prunecli.report import EpochReport
    from prunecli.training.method import Batch, TrainingRun

DRAWS = 1
"""The use of a step's random numbers that gates have (`TrainingRun.generator`)."""

POINTS = 10
"""Points of the course that are kept of every epoch of the search."""


class LearnedPruning(PlainMethod):
    """A search for the channels to keep, in gates or by a penalty, then a cut, then training.

    The network to train is `module`: the traced dense one, with a bank of gates where the rule has
    some. After the steps of the search the channels with the best scores stay, as many as the
    budget allows; the rest is cut, proven, batch norm is estimated anew, and what is left is
    trained. Masks are decided from the live logits, never from an average.
    """

    def __init__(self, search: Search, rule: Rule, module: fx.GraphModule) -> None:
        self.search = search
        self.rule = rule
        self.module: nn.Module = module
        self.choice: Choice | None = None
        self.course: tuple[CoursePoint, ...] = ()
        self.flips = 0
        self.error = 0.0
        self.norms = 0

    @property
    def network(self) -> Network:
        """The network that is cut: the dense one, or what is left of it without blocks."""
        return self.search.setup.network if self.choice is None else self.choice.network

    @property
    def keep(self) -> NDArray[np.bool_]:
        """One boolean per atom of `network`."""
        if self.choice is None:
            return np.ones(self.network.coupling.atom_count, np.bool_)
        return self.choice.keep

    @property
    def selection(self) -> Selection | None:
        """What stays whole, and what had to give way; None before the cut."""
        return None if self.choice is None else self.choice.selection

    @property
    def widths(self) -> Widths:
        """The widths that are left of the groups of `network`."""
        groups = self.network.coupling.groups
        return np.asarray([int(self.keep[group.atoms].sum()) for group in groups], np.int64)

    # --- hooks of training -----------------------------------------------------------------------

    def start(self, run: TrainingRun) -> Replacement:  # noqa: ARG002
        """Set the gates to where they begin, and train them in a group of their own."""
        bank = _bank(self.module)
        self.rule.begin(bank)
        if bank is None or not self.rule.learns:
            return Replacement.same_tensors(self.module)
        own = {
            "params": [bank.logits],
            "weight_decay": 0.0,
            "lr_scale": 1.0,
            "gates": True,
            # Steps of one length have gradients far larger than those of weights: in one norm with
            # them, clipping would stop the weights.
            "clipped": self.rule.clipped,
        }
        return Replacement.same_tensors(self.module, [own])

    def before_step(self, run: TrainingRun) -> None:
        """Draw, and let the rule follow its budget."""
        if self.choice is not None:
            return
        moment = self._moment(run)
        for bank in self._banks(run):
            bank.active = True
        if moment.bank is not None:
            drawn = torch.rand(moment.bank.draws.shape, generator=moment.generator)
            moment.bank.draws.copy_(drawn)
            before = moment.bank.mask.clone()
            self._follow_budget(run, moment)
            self.flips += int((before != moment.bank.mask).sum())
        else:
            self.rule.before_step(moment)
        self._set_gate_rate(run)

    def extra_loss(self, run: TrainingRun, batch: Batch) -> Tensor | None:  # noqa: ARG002
        """Return what the rule adds to the loss."""
        return None if self.choice is not None else self.rule.extra_loss(self._moment(run))

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        """Let the rule look at the gradients of its gates."""
        if self.choice is None:
            self.rule.after_backward(self._moment(run), batch.scale)

    def after_step(self, run: TrainingRun) -> Replacement | None:
        """Go on with the search; at its end cut."""
        if self.choice is not None:
            return None
        moment = self._moment(run)
        self.rule.after_step(moment)
        if run.average is not None and moment.bank is not None:
            averaged = _bank(run.average.model)
            assert averaged is not None
            averaged.mask.copy_(moment.bank.mask)
        length, done = run.recipe.steps_per_epoch, run.taken + 1
        within = done % length  # 0 at the end of an epoch, whose score goes to the point there
        if within % max(length // POINTS, 1) == 0 or done == self.search.steps:
            self.course = (*self.course, self._point(run))
            self.flips = 0
        return self._cut(run) if done >= self.search.steps else None

    def after_round(self, run: TrainingRun, report: EpochReport) -> None:
        """Note the score of the epoch in the course."""
        if self.choice is not None:
            self.course = (*self.course, self._point(run, ended=True))
        if self.course:
            last = dataclasses.replace(
                self.course[-1],
                train_loss=report.train_loss,
                loss=report.loss,
                accuracy=report.accuracy,
                learning_rate=report.learning_rate,
                images_per_second=report.images_per_second,
            )
            self.course = (*self.course[:-1], last)

    def settled(self, run: TrainingRun) -> bool:  # noqa: ARG002
        """Tell whether the channels are chosen."""
        return self.choice is not None

    def facts(self) -> dict[str, float]:
        """Return budget, expected and hard cost, gates alive, and what changed since last asked."""
        if self.choice is not None:
            alive = float(self.choice.opened.sum())
            return {"budget": self._target(), "cost": self.left, "alive": alive}
        if not self.course:
            return {"budget": 1.0, "cost": 1.0, "alive": float(self.search.gated.size)}
        last = self.course[-1]
        found = {"budget": last.budget, "expected": last.expected, "cost": last.cost}
        gates = {"alive": float(last.alive), "flips": float(last.flips)}
        return {**found, **gates, **self.rule.facts()}

    def log_rows(self) -> tuple[CoursePoint, ...]:
        """Log the course: some points of every epoch of the search, then one per epoch."""
        return self.course

    def state(self) -> dict[str, Any]:
        """Return what was decided, the course, and what the rule remembers."""
        return {
            "opened": None if self.choice is None else torch.as_tensor(self.choice.opened),
            "selection": None if self.choice is None else selection_fields(self.choice.selection),
            "course": [dataclasses.asdict(point) for point in self.course],
            "flips": self.flips,
            "error": self.error,
            "norms": self.norms,
            "rule": self.rule.state(),
        }

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement | None:
        """Go on in the search, or with the network that it left."""
        self.course = tuple(CoursePoint(**point) for point in state["course"])
        self.flips, self.error, self.norms = state["flips"], state["error"], state["norms"]
        self.rule.restore(state["rule"])
        if state["selection"] is None:
            for bank in self._banks(run):
                bank.active = run.taken > 0
            return None
        opened, selection = state["opened"].numpy(), selection_from(state["selection"])
        self.choice = restored(self.search, opened, selection)
        self.module, _ = self.network.graph_network(self.keep)
        return Replacement.cut(self.module, slices_of(self.network.coupling, self.keep))

    def finish(self, run: TrainingRun) -> PruningPlan:
        """Put the trained weights into the dense module; return the plan."""
        setup = self.search.setup
        self._write_back(run.bare)
        return plan_of(
            self.network, self.keep, self.widths, budget=setup.budget, options=setup.options
        )

    # --- the search ------------------------------------------------------------------------------

    def _moment(self, run: TrainingRun) -> Moment:
        return Moment(
            step=run.taken,
            steps=self.search.steps,
            module=run.bare,
            bank=_bank(run.bare),
            generator=run.generator(DRAWS),
        )

    def _follow_budget(self, run: TrainingRun, moment: Moment) -> None:
        try:
            self.rule.before_step(moment)
        except InputError as error:
            if error.code == "BAD_SALIENCY":  # of weights that have grown beyond all bounds
                check_finite(math.nan, run, what=WEIGHTS)
            raise

    def _banks(self, run: TrainingRun) -> Iterator[GateBank]:
        """Yield the gates of the network, and those of its average."""
        models = [run.bare] if run.average is None else [run.bare, run.average.model]
        for model in models:
            bank = _bank(model)
            if bank is not None:
                yield bank

    def _set_gate_rate(self, run: TrainingRun) -> None:
        """Give gates a learning rate of their own, which no schedule moves."""
        rate = self.rule.gate_rate()
        for group in run.optimizer.param_groups:
            if group.get("gates"):
                group["lr"] = rate

    def _point(self, run: TrainingRun, *, ended: bool = False) -> CoursePoint:
        """Return where the run stands."""
        groups = self.search.network.coupling.groups
        taken = run.taken + (0 if ended else 1)
        if self.choice is not None:
            opened, left = self.choice.opened, self.left
            widths = self.search.count(opened)
            numbers = (self._target(), left, left, int(opened.sum()), 0, widths)
        else:
            numbers = self._searched(self._moment(run))
        budget, expected, cost, alive, flips, widths = numbers
        return CoursePoint(
            updates=taken,
            epoch=taken / run.recipe.steps_per_epoch,
            phase=SEARCH if self.choice is None else TRAIN,
            budget=budget,
            expected=expected,
            cost=cost,
            alive=alive,
            flips=flips,
            widths={group.name: int(width) for group, width in zip(groups, widths, strict=True)},
        )

    def _searched(self, moment: Moment) -> tuple[float, float, float, int, int, Widths]:
        search = self.search
        fixed = int((~search.gated).sum())
        if moment.bank is None:
            dense = search.setup.network.cost.dense_widths
            return 1.0, 1.0, 1.0, search.gated.size, 0, dense
        mask = moment.bank.mask
        opened = search.settled(mask.cpu().numpy() > 0)
        return (
            self.rule.budget(moment),
            search.kept(self.rule.expected_gates(moment.bank)),
            search.share(search.cost(opened)),
            fixed + int(mask.sum()),
            self.flips,
            search.count(opened),
        )

    def _target(self) -> float:
        kind, ceiling = next(iter(self.search.ceilings.items()))
        return ceiling / self.search.dense[kind]

    @property
    def left(self) -> float:
        """The share that is kept of the cost that the budget names first."""
        return self.search.share(self.network.cost.cost(self.widths))

    # --- the cut ---------------------------------------------------------------------------------

    def _cut(self, run: TrainingRun) -> Replacement:
        """Choose the channels, multiply what is left of gates into the weights, and cut."""
        check_weights(run)
        setup, moment = self.search.setup, self._moment(run)
        scores = run.recipe.processes.from_main(self.rule.scores(moment).double()).cpu()
        choice = chosen(self.search, scores)
        for model in (run.bare, *([] if run.average is None else [run.average.model])):
            _fold_gates_(model, self.rule, torch.as_tensor(choice.opened[self.search.gated]))
        self._write_back(run.bare)
        self.choice = choice
        slim, self.error = narrower_network(choice.network, choice.keep, seed=setup.options.seed)
        slices = slices_of(choice.network.coupling, choice.keep)
        self.module = slim.to(run.device)
        self.norms = estimate_norms_(run, self.module)
        known = dict(self.module.named_buffers())

        def moved(name: str, tensor: Tensor) -> Tensor:
            # Statistics of other channels are of no use to the average.
            return known[name] if name in known else cut_tensor(tensor, slices.get(name, {}))

        return Replacement(self.module, moved)

    def _write_back(self, trained: nn.Module) -> None:
        own = {
            name: value
            for name, value in trained.state_dict().items()
            if not name.startswith(f"{GATES}.")
        }
        # Before the cut, all is kept.
        write_back_(self.network.model, own, slices_of(self.network.coupling, self.keep))


def _bank(module: nn.Module) -> GateBank | None:
    return cast("GateBank | None", getattr(module, GATES, None))


def _fold_gates_(module: nn.Module, rule: Rule, kept: Tensor) -> None:
    """Multiply the gates of evaluation into the weights that they gate, `kept` [gated atoms] open.

    The cut may keep channels that the last mask had closed, as widths are aligned and not thinner
    than asked for. One whose gate is 0 in evaluation gets what the gate is expected to be: a kept
    channel without weights would be a dead one.
    """
    bank = _bank(module)
    if bank is None:
        return
    bank.mask.copy_(kept)
    with torch.no_grad():
        own = rule.tested(bank)
        own = torch.where(own > 0, own, rule.expected_gates(bank)) * bank.mask
    # A fixed kernel may be a buffer.
    bank.fold_(own, {**dict(module.named_parameters()), **dict(module.named_buffers())})
