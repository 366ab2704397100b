"""Dynamic channel execution, as a method of training: of every group only some channels run.

Source: Spasov, Lio 2019, "Dynamic Neural Network Channel Execution for Efficient Training", arXiv
1905.06435, of which the abstract alone is known to us: in every step a combinatorial upper
confidence bound chooses the salient channels, and they alone are computed and learn. The rest is
our reconstruction: the warm start, the scaling of rewards, one share of every group, and the freeze
after half of the steps.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.budget import Budget
from prunecli.cutting.surgery import slices_of
from prunecli.errors import InputError
from prunecli.methods.dynamic.bandits import Bandits
from prunecli.methods.dynamic.constants import Constants
from prunecli.methods.dynamic.freezing import frozen_network
from prunecli.methods.dynamic.groups import check_widths, probed
from prunecli.methods.dynamic.rewards import Rewards
from prunecli.methods.dynamic.slicing import Slicer, Whole, tensors_of
from prunecli.methods.narrowing import write_back_
from prunecli.options import PruneOptions
from prunecli.pruning.proven_cut import plan_of
from prunecli.report import CoursePoint
from prunecli.training.loop import check_weights
from prunecli.training.method import PlainMethod, Replacement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, fx

    from prunecli.cost.model import Widths
    from prunecli.methods.dynamic.settings import DynamicOptions
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan
    from prunecli.pruning.selection import Selection
    from prunecli.report import EpochReport
    from prunecli.training.method import Batch, TrainingRun


class DynamicChannels(PlainMethod):
    """Executes `widths` channels of every group, other ones in every step, then freezes the best.

    `module` is the network to train: a narrow one, into which the slices of the chosen channels are
    put before a step and taken back from later, with the optimiser's state and the average of them.
    What does not run keeps its bits. Once the channels are frozen, the module of `network` holds
    what was trained. Until then the held-out accuracy is that of the channels that ran last.
    `selection`, `kind` and `target` are for reports: what stays whole, and the share of which cost
    was asked for.
    """

    saves_between_steps = True

    def __init__(
        self, network: Network, widths: Widths, options: DynamicOptions, seed: int
    ) -> None:
        """Start from the weights of `network`, whose module is written to: give a copy of it.

        `widths` has the channels to execute of every group. Raises `InputError` (`BAD_OPTION`,
        `NOTHING_TO_CHOOSE`) and `GraphError` (`DYNAMIC_WHOLE`, `DYNAMIC_NEEDS_GRAPH`,
        `DYNAMIC_STRUCTURE`).
        """
        options.check()
        self.network, self.options = network, options
        self.widths = np.asarray(widths, np.int64)
        check_widths(network, self.widths)
        self.bandits = Bandits(
            network.coupling.groups,
            self.widths,
            explore=options.explore,
            decay=options.reward_ema,
            seed=seed,
        )
        if not self.bandits.narrow:
            raise InputError(
                "every channel of every group would be executed: there is nothing to choose",
                code="NOTHING_TO_CHOOSE",
                hint="ask for a smaller budget",
            )
        self.keep = self.bandits.choice(0)
        self.best = self.best_at_start = self.keep
        self.unchanged = 0
        self.frozen_after: int | None = None
        self.error: float | None = None
        self.course: tuple[CoursePoint, ...] = ()
        self.selection: Selection | None = None
        self.kind, self.target = "flops", self.share("flops")
        self.rewards = Rewards(network)
        self.constants, self.module = self._narrow_module()
        self._whole: Whole | None = None

    # --- the life of a run -----------------------------------------------------------------------

    def start(self, run: TrainingRun) -> None:
        """Set the whole network beside the narrow one; raise `InputError` for too few steps."""
        warm = self.bandits.warm_steps
        if warm >= run.steps:
            raise InputError(
                f"every channel has to run once, which takes {warm} steps, and there are "
                f"{run.steps}",
                code="TOO_FEW_STEPS",
                hint="train for more epochs, with smaller batches, or keep more channels",
            )
        whole, _ = self.network.graph_network(np.ones_like(self.keep))
        slicer = Slicer(self.network.coupling, self.bandits.chosen)
        self._whole = Whole(whole, slicer, run)

    def before_step(self, run: TrainingRun) -> None:
        """Choose the channels of the step, and put their slices into the narrow network."""
        if self.frozen:
            return
        if run.step == 0:
            self.best_at_start = self.best
        self._execute(run, self.bandits.choice(run.taken))

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        """Reward the channels that ran."""
        if self.frozen:
            return
        processes = run.recipe.processes
        heard = self.rewards.heard(len(batch), run.device)
        total = processes.from_main(processes.total(heard))
        self.bandits.learn_(self.keep, total.double().cpu().numpy())

    def after_step(self, run: TrainingRun) -> Replacement | None:
        """Freeze the channels when it is time."""
        if self.frozen:
            return None
        self.whole.rest_(run)
        best, taken = self.bandits.best(), run.taken + 1
        self.unchanged = self.unchanged + 1 if bool((best == self.best).all()) else 0
        self.best = best
        if taken < self.bandits.warm_steps:
            return None
        settled = self.options.settle and self.unchanged >= run.recipe.steps_per_epoch
        return self._freeze(run) if settled or taken >= self.search_steps(run.steps) else None

    def after_round(self, run: TrainingRun, report: EpochReport) -> None:
        """Note where the run stands."""
        kept = self.share(self.kind)
        groups = self.network.coupling.groups
        point = CoursePoint(
            updates=run.taken,
            epoch=run.taken / run.recipe.steps_per_epoch,
            phase="train" if self.frozen else "search",
            budget=self.target,
            expected=kept,
            cost=kept,
            alive=int(self.widths.sum()),
            flips=self.changed,
            widths=dict(zip((group.name for group in groups), self.widths.tolist(), strict=True)),
            train_loss=report.train_loss,
            loss=report.loss,
            accuracy=report.accuracy,
            learning_rate=report.learning_rate,
            images_per_second=report.images_per_second,
        )
        self.course = (*self.course, point)
        if self.frozen:
            self.best_at_start = self.best

    def settled(self, run: TrainingRun) -> bool:  # noqa: ARG002
        """Tell whether the channels are frozen."""
        return self.frozen

    def facts(self) -> dict[str, float]:
        """Return whether channels are searched for, what runs, and how many are new in the best."""
        return {
            "searching": float(not self.frozen),
            "FLOPs": self.share("flops"),
            "changed": float(self.changed),
        }

    def log_rows(self) -> tuple[CoursePoint, ...]:
        """Log where the run stood after every epoch."""
        return self.course

    def state(self) -> dict[str, Any]:
        """Return the bandits, and the whole network with its optimiser's state and average."""
        return {
            **{name: torch.as_tensor(getattr(self, name)) for name in _CHOICES},
            "bandits": self.bandits.state(),
            "course": [dataclasses.asdict(point) for point in self.course],
            "unchanged": self.unchanged,
            "frozen_after": self.frozen_after,
            "error": self.error,
            **({"dense": self.network.model.state_dict()} if self.frozen else self.whole.state()),
        }

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement | None:
        """Go on with the channels that ran last, or with those that are frozen."""
        self.keep, self.best, self.best_at_start = (state[name].numpy() for name in _CHOICES)
        self.bandits.restore(state["bandits"])
        self.course = tuple(CoursePoint(**point) for point in state["course"])
        self.unchanged = state["unchanged"]
        self.frozen_after, self.error = state["frozen_after"], state["error"]
        if self.frozen:
            self.network.model.load_state_dict(state["dense"])
            self._whole = None
            return Replacement.same_tensors(self.network.graph_network(self.keep)[0])
        self.whole.restore(state)
        self._follow(run)
        return None

    def finish(self, run: TrainingRun) -> PruningPlan:
        """Put the trained weights into the dense module; return what is kept.

        The plan has the costs and no budget: who asked for these widths knows it.
        """
        coupling = self.network.coupling
        write_back_(self.network.model, run.bare.state_dict(), slices_of(coupling, self.keep))
        return plan_of(
            self.network,
            self.keep,
            self.widths,
            budget=Budget(()),
            options=PruneOptions(signal="taylor", allocation="uniform", seed=run.seed),
        )

    # --- what is known of it ---------------------------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Tell whether the channels stay as they are."""
        return self.frozen_after is not None

    @property
    def whole(self) -> Whole:
        """The whole network; there is none before the start and after the freeze."""
        assert self._whole is not None
        return self._whole

    @property
    def changed(self) -> int:
        """Channels that came among those with the highest mean reward since the epoch began."""
        return int((self.best & ~self.best_at_start).sum())

    def search_steps(self, steps: int) -> int:
        """Return the steps, of so many, after which channels are frozen at the latest."""
        asked = round(self.options.search * steps)
        return min(max(asked, self.bandits.warm_steps), steps - 1)

    def share(self, kind: str) -> float:
        """Return the share of a cost that executing so many channels takes."""
        cost = self.network.cost
        return float(cost.cost(self.widths)[kind] / cost.dense[kind])

    def dense_tensors(self, run: TrainingRun) -> dict[str, Tensor]:
        """Return what the whole network is now, by name; before the freeze."""
        self.whole.take_in_(run)
        return tensors_of(self.whole.module)

    # --- the networks ----------------------------------------------------------------------------

    def _narrow_module(self) -> tuple[Constants, fx.GraphModule]:
        """Return a network of the narrow widths whose channels can be exchanged."""
        constants = probed(
            self.network, self.widths, Constants(self.network, self.keep, self.bandits.chosen)
        )
        module, _ = self.network.graph_network(self.keep)
        self.rewards.listen_(module)
        constants.free_(module)
        return constants, module

    def _execute(self, run: TrainingRun, keep: NDArray[np.bool_]) -> None:
        """Let the narrow network be the one with these atoms."""
        if self.whole.at and bool((keep == self.keep).all()):
            return
        self.keep = keep
        self.whole.take_in_(run)
        self._follow(run)
        self.whole.give_out_(run)

    def _follow(self, run: TrainingRun) -> None:
        """Let everything that follows the choice of channels follow the one that stands."""
        average = [] if run.average is None else [run.average.model]
        self.constants.follow_(self.keep, [run.bare, *average])
        self.rewards.follow(self.keep)
        self.whole.point_(self.keep)

    def _freeze(self, run: TrainingRun) -> Replacement:
        """Go on with the best channels alone, in a network that was cut to them and proven."""
        check_weights(run)
        self._execute(run, self.best)
        write_back_(self.network.model, self.dense_tensors(run), {})
        replacement, self.error = frozen_network(self.network, self.keep, run)
        self.frozen_after, self._whole = run.taken + 1, None
        return replacement


_CHOICES = ("keep", "best", "best_at_start")
