"""Dynamic channel execution, as a method of training: of every group only some channels run.

Source: Spasov, Lio 2019, "Dynamic Neural Network Channel Execution for Efficient Training", arXiv
1905.06435, of which the abstract alone is known to us: in every step a combinatorial upper
confidence bound chooses the salient channels, and they alone are computed and learn. The rest is
our reconstruction: the warm start, the scaling of rewards, one share of every group, and the freeze
after half of the steps.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunecli.budget import Budget
from prunecli.cutting.surgery import slices_of
from prunecli.errors import InputError
from prunecli.methods.dynamic.bandit import (
    EXPLORE,
    confidence_bounds,
    learn_,
    scaled,
    top,
    warm_sets,
)
from prunecli.methods.dynamic.constants import Constants
from prunecli.methods.dynamic.freezing import frozen_network
from prunecli.methods.dynamic.groups import check_widths, chosen_atoms, probed
from prunecli.methods.dynamic.rewards import Rewards
from prunecli.methods.dynamic.slicing import Slicer, Whole, tensors_of
from prunecli.methods.iterative.narrowing import write_back_
from prunecli.options import PruneOptions
from prunecli.pruning.proven_cut import plan_of
from prunecli.training.devices import from_main_process, over_processes
from prunecli.training.finetune import trainable_copy
from prunecli.training.method import PlainMethod, Replacement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, fx

    from prunecli.cost.model import Widths
    from prunecli.network.traced import Network
    from prunecli.plan import PruningPlan
    from prunecli.training.method import Batch, TrainingRun


@dataclass(frozen=True)
class DynamicOptions:
    """How channels are searched for.

    `explore` is the factor of the confidence radius, `sqrt(explore ln t / T)`. `reward_ema` is what
    a mean reward keeps of itself at another reward (0: the plain mean over all of them). `search`
    is the share of the steps after which the channels are frozen; with `settle` they are as soon as
    an epoch has not changed those with the highest mean reward.
    """

    explore: float = EXPLORE
    reward_ema: float = 0.0
    search: float = 0.5
    settle: bool = True


class DynamicChannels(PlainMethod):
    """Executes `widths` channels of every group, other ones in every step, then freezes the best.

    `module` is the network to train: a narrow one, into which the slices of the chosen channels are
    put before a step and taken back from later, with the optimiser's state and the average of them.
    What does not run keeps its bits. `network` holds a copy of the model; what was trained is in it
    once the channels are frozen. Until then the held-out accuracy is that of the channels that ran
    last.
    """

    saves_between_steps = True

    def __init__(
        self, network: Network, widths: Widths, options: DynamicOptions, seed: int
    ) -> None:
        """Take a copy of the model; `widths` has the channels to execute of every group.

        Raises `InputError` (`BAD_OPTION`, `NOTHING_TO_CHOOSE`) and `GraphError` (`DYNAMIC_WHOLE`,
        `DYNAMIC_NEEDS_GRAPH`, `DYNAMIC_STRUCTURE`).
        """
        _check_options(options)
        check_widths(network, widths)
        student = trainable_copy(network.model).eval()
        self.network = dataclasses.replace(network, model=student)
        self.widths, self.options = np.asarray(widths, np.int64), options
        groups = network.coupling.groups
        self.chosen = chosen_atoms(groups, self.widths)
        narrow = [(group, int(width)) for group, width in zip(groups, self.widths, strict=True)
                  if width < group.width]  # fmt: skip
        if not narrow:
            raise _nothing_to_choose()
        self.narrow = tuple(narrow)
        random = np.random.default_rng(seed)
        self.warm = {
            group.name: warm_sets(random.permutation(group.width), width) for group, width in narrow
        }
        self.means = np.zeros(network.coupling.atom_count)
        self.counts = np.zeros(network.coupling.atom_count, np.int64)
        self.skipped = 0
        self.frozen_after: int | None = None
        self.error: float | None = None
        self.keep = self._choice(0)
        self.best = self.best_at_start = self.keep
        self.unchanged = 0
        self._slicer = Slicer(network.coupling, self.chosen)
        self.rewards = Rewards(self.network)
        self.constants, self.module = self._narrow_module()
        self._whole: Whole | None = None

    # --- the life of a run -----------------------------------------------------------------------

    def start(self, run: TrainingRun) -> None:
        """Set the whole network beside the narrow one; raise `InputError` for too few steps."""
        if self.warm_steps >= run.steps:
            raise InputError(
                f"every channel has to run once, which takes {self.warm_steps} steps, and there "
                f"are {run.steps}",
                code="TOO_FEW_STEPS",
                hint="train for more epochs, with smaller batches, or keep more channels",
            )
        every = np.ones(self.keep.size, np.bool_)
        whole, _ = self.network.graph_network(every)
        self._whole = Whole(whole, self._slicer, run)

    def before_step(self, run: TrainingRun) -> None:
        """Choose the channels of the step, and put their slices into the narrow network."""
        if self.frozen:
            return
        if run.step == 0:
            self.best_at_start = self.best
        self._execute(run, self._choice(run.taken))

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        """Reward the channels that ran."""
        if self.frozen:
            return
        accelerator = run.recipe.accelerator
        heard = self.rewards.heard(len(batch), run.device)
        total = from_main_process(accelerator, over_processes(accelerator, heard))
        rewards = total.double().cpu().numpy()
        for group, _ in self.narrow:
            ran = np.flatnonzero(self.keep[group.atoms])
            found = scaled(rewards[group.atoms][ran])
            if found is None:
                self.skipped += 1
                continue
            means, counts = self.means[group.atoms], self.counts[group.atoms]
            learn_(means, counts, ran, found, decay=self.options.reward_ema)

    def after_step(self, run: TrainingRun) -> Replacement | None:
        """Freeze the channels when it is time."""
        if self.frozen:
            return None
        self.whole.rest_(run)
        best, taken = self._best(), run.taken + 1
        self.unchanged = self.unchanged + 1 if bool((best == self.best).all()) else 0
        self.best = best
        if taken < self.warm_steps:
            return None
        settled = self.options.settle and self.unchanged >= run.recipe.steps_per_epoch
        return self._freeze(run) if settled or taken >= self.search_steps(run) else None

    def settled(self, run: TrainingRun) -> bool:  # noqa: ARG002
        """Tell whether the channels are frozen."""
        return self.frozen

    def facts(self) -> dict[str, float]:
        """Return whether channels are searched for, what runs, and how many are new in the best.

        `changed` counts, since the epoch began, the channels that came among those with the highest
        mean reward.
        """
        return {
            "searching": float(not self.frozen),
            "FLOPs": self.share("flops"),
            "changed": float((self.best & ~self.best_at_start).sum()),
        }

    def state(self) -> dict[str, Any]:
        """Return the bandit, and the whole network with its optimiser's state and average."""
        return {
            "keep": torch.as_tensor(self.keep),
            "best": torch.as_tensor(self.best),
            "best_at_start": torch.as_tensor(self.best_at_start),
            "means": torch.as_tensor(self.means),
            "counts": torch.as_tensor(self.counts),
            "unchanged": self.unchanged,
            "skipped": self.skipped,
            "frozen_after": self.frozen_after,
            "error": self.error,
            **({"dense": self.network.model.state_dict()} if self.frozen else self.whole.state()),
        }

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement | None:
        """Go on with the channels that ran last, or with those that are frozen."""
        self.keep, self.best, self.best_at_start, self.means, self.counts = (
            state[name].numpy().copy()
            for name in ("keep", "best", "best_at_start", "means", "counts")
        )
        self.unchanged, self.skipped = state["unchanged"], state["skipped"]
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
    def warm_steps(self) -> int:
        """Steps that it takes until every channel has run once."""
        return max(len(sets) for sets in self.warm.values())

    def search_steps(self, run: TrainingRun) -> int:
        """Return the steps after which channels are frozen at the latest."""
        asked = round(self.options.search * run.steps)
        return min(max(asked, self.warm_steps), run.steps - 1)

    def share(self, kind: str) -> float:
        """Return the share of a cost that executing so many channels takes."""
        cost = self.network.cost
        return float(cost.cost(self.widths)[kind] / cost.dense[kind])

    def dense_tensors(self, run: TrainingRun) -> dict[str, Tensor]:
        """Return what the whole network is now, by name."""
        self.whole.take_in_(run)
        return tensors_of(self.whole.module)

    # --- choices ---------------------------------------------------------------------------------

    def _choice(self, taken: int) -> NDArray[np.bool_]:
        """Return the atoms to execute after so many steps."""
        keep = ~self.chosen
        for group, width in self.narrow:
            warm = self.warm[group.name]
            if taken < len(warm):
                chosen = warm[taken]
            else:
                bounds = confidence_bounds(
                    self.means[group.atoms],
                    self.counts[group.atoms],
                    taken + 1,
                    explore=self.options.explore,
                )
                chosen = top(bounds, width)
            keep[group.first + chosen] = True
        return keep

    def _best(self) -> NDArray[np.bool_]:
        """Return the atoms with the highest mean rewards: those that a freeze would keep."""
        keep = ~self.chosen
        for group, width in self.narrow:
            keep[group.first + top(self.means[group.atoms], width)] = True
        return keep

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

    def _narrow_module(self) -> tuple[Constants, fx.GraphModule]:
        """Return a network of the narrow widths whose channels can be exchanged."""
        constants = probed(self.network, self.widths, Constants(self.network, self.keep))
        module, _ = self.network.graph_network(self.keep)
        self.rewards.listen_(module)
        constants.free_(module)
        return constants, module

    def _freeze(self, run: TrainingRun) -> Replacement:
        """Go on with the best channels alone, in a network that was cut to them and proven."""
        self._execute(run, self.best)
        self.whole.take_in_(run)
        write_back_(self.network.model, tensors_of(self.whole.module), {})
        replacement, self.error = frozen_network(self.network, self.keep, run)
        self.frozen_after, self._whole = run.taken + 1, None
        return replacement


def _check_options(options: DynamicOptions) -> None:
    for name, fine, wanted in (
        ("explore", 0 <= options.explore < float("inf"), "0 or more"),
        ("reward_ema", 0 <= options.reward_ema < 1, "0 (off) to below 1"),
        ("search", 0 <= options.search < 1, "0 to below 1"),
    ):
        if not fine:
            raise InputError(
                f"{name.replace('_', '-')} {getattr(options, name)} is out of range",
                code="BAD_OPTION",
                hint=f"give {wanted}",
            )


def _nothing_to_choose() -> InputError:
    return InputError(
        "every channel of every group would be executed: there is nothing to choose",
        code="NOTHING_TO_CHOOSE",
        hint="ask for a smaller budget",
    )
