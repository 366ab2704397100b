# ruff: noqa: ARG002 - the hooks of a method that does nothing look at nothing
"""What a training-time method may do to a run of training, and the run that it is given.

A method that prunes while a network trains implements the hooks it needs of `PlainMethod`, which
does nothing. The order is fixed. At the beginning: `start`, and for a resumed run `restore`, else
the score of the network as it is and `settled`. In every step: `before_step`, the forward pass,
`extra_loss`, the backward pass, `after_backward`, the update of the weights and of their average,
`after_step`. After every round: the score on held-out images, `facts`, `settled`, `after_round`,
`state`. At the end: `finish`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from prunecli.cutting.surgery import Slices, cut_tensor
from prunecli.training.recipe import Recipe, derive_seed
from prunecli.training.state import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _typeshed import DataclassInstance
    from torch import Tensor, nn

    from prunecli.plan import PruningPlan
    from prunecli.report import EpochReport
    from prunecli.training.average import ExponentialAverage
    from prunecli.training.optimizers import ParameterGroup


@dataclass(frozen=True)
class Batch:
    """One step's batch, the share of this process: images, labels and float32 logits, n of each.

    For a task without classes, the latter are the main output.

    `loss` is the mean over them, what the method added included, and its gradient has been taken
    `scale` times (fp16 scales losses; otherwise 1). In `extra_loss` it is that without the method,
    of the last part of the images where gradients are accumulated.
    """

    images: Tensor
    labels: Tensor
    logits: Tensor
    loss: Tensor
    scale: float = 1.0

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Replacement:
    """Another network to go on with, its weights in it, in the place of the one that trained.

    `moved(name, tensor)` returns what a tensor of the shape of the old network's parameter or
    buffer `name` is in the new network: with it the average and the optimiser's state follow. A
    name that only the new network has begins without. `groups` are parameters of the new network
    that are trained in a way of their own; all others are as ever. A group may have an `lr_scale`,
    a factor on the learning rate of the schedule.
    """

    module: nn.Module
    moved: Callable[[str, Tensor], Tensor]
    groups: Sequence[ParameterGroup] = ()

    @classmethod
    def cut(
        cls, module: nn.Module, slices: Slices, groups: Sequence[ParameterGroup] = ()
    ) -> Replacement:
        """Return the replacement by a network that keeps these slices of the old one's tensors."""
        return cls(module, lambda name, tensor: cut_tensor(tensor, slices.get(name, {})), groups)

    @classmethod
    def same_tensors(cls, module: nn.Module, groups: Sequence[ParameterGroup] = ()) -> Replacement:
        """Return the replacement by a network whose tensors are those of the old one, or new."""
        return cls(module, lambda _, tensor: tensor, groups)


@dataclass
class TrainingRun:
    """Everything about a run that changes with its steps; `recipe` is what does not.

    `bare` is the network, `model` what accelerate made of it for several processes. `steps` are
    those of the whole run: a method whose end shows only on the way changes them, and the schedule
    follows. `epoch` and `step` within it count from 0, those of the step at hand; `between_steps`
    is false while something is half done. `generation` counts the networks that were put in place
    of others: tensors from before belong to none of a later one. `seen` says of every image whether
    this epoch has not trained on it (0), had it wrong (1) or right (2); None where that is not
    asked for.
    """

    recipe: Recipe
    method: TrainingMethod
    model: nn.Module
    bare: nn.Module
    memory_format: torch.memory_format
    optimizer: Any
    average: ExponentialAverage | None
    steps: int
    epoch: int = 0
    step: int = 0
    totals: Totals = field(default_factory=Totals)
    between_steps: bool = True
    seen: Tensor | None = None
    generation: int = 0

    @property
    def taken(self) -> int:
        """Steps taken before the one at hand, since the beginning."""
        return self.epoch * self.recipe.steps_per_epoch + self.step

    @property
    def seed(self) -> int:
        """What all draws follow from."""
        return self.recipe.options.seed

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        device: torch.device = self.recipe.accelerator.device
        return device

    @property
    def result(self) -> nn.Module:
        """The network as it would be given back now: the averaged one, if there is an average."""
        return self.bare if self.average is None else self.average.model

    def generator(self, use: int) -> torch.Generator:
        """Return the generator of one `use` in the step at hand, the same in every process."""
        # One number more than the seeds of dropout and augmentation, which differ by process.
        draws = derive_seed(self.seed, self.epoch, self.step, 0, use)
        return torch.Generator().manual_seed(draws)


class TrainingMethod(Protocol):
    """What happens to a network while it trains, besides training.

    Every process of a run calls the same hooks in the same order, and has to decide alike: what is
    summed over a process's images is added up first (`Recipe.processes`), random draws come from
    `TrainingRun.generator`. A hook that returns a `Replacement` gets the network, the optimiser,
    the average and the processes' wrapping replaced before anything else happens.
    """

    saves_between_steps: bool
    """Whether `state` is complete after every step; otherwise only after a round."""

    def start(self, run: TrainingRun) -> Replacement | None:
        """Begin, with the network on its device and its optimiser made; the first call of all."""

    def before_step(self, run: TrainingRun) -> None:
        """Change the network for the step to come; the learning rate is set."""

    def extra_loss(self, run: TrainingRun, batch: Batch) -> Tensor | None:
        """Return a scalar to add to the loss, outside autocast; None for nothing."""

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        """Read or change gradients, before they are clipped and the weights are updated."""

    def after_step(self, run: TrainingRun) -> Replacement | None:
        """Change the updated weights, and those of `run.average`, which has followed them."""

    def after_round(self, run: TrainingRun, report: EpochReport) -> Replacement | None:
        """Look at a round that has been scored; change the network, or `run.steps`."""

    def settled(self, run: TrainingRun) -> bool:
        """Tell whether the network is what was asked for: no other is remembered as the best."""

    def facts(self) -> Mapping[str, float]:
        """Return what to report of the method at this time, by names of its own."""

    def log_rows(self) -> Sequence[DataclassInstance] | None:
        """Return the rows of the run's log; None for one per round."""

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs: tensors, numbers, text, and lists and mappings of them."""

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement | None:
        """Go back to a state, after `start`; weights, optimiser and average are loaded after it."""

    def finish(self, run: TrainingRun) -> PruningPlan | None:
        """Return what was removed; `run.bare` holds the weights of the best round."""


class PlainMethod:
    """Training and nothing else: what a method does not say."""

    saves_between_steps = True

    def start(self, run: TrainingRun) -> Replacement | None:
        """Begin with the network as it is."""
        return None

    def before_step(self, run: TrainingRun) -> None:
        """Change nothing."""

    def extra_loss(self, run: TrainingRun, batch: Batch) -> Tensor | None:
        """Add nothing."""
        return None

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:
        """Change nothing."""

    def after_step(self, run: TrainingRun) -> Replacement | None:
        """Go on."""
        return None

    def after_round(self, run: TrainingRun, report: EpochReport) -> Replacement | None:
        """Go on."""
        return None

    def settled(self, run: TrainingRun) -> bool:
        """Tell that every round's network may be the result."""
        return True

    def facts(self) -> Mapping[str, float]:
        """Report nothing."""
        return {}

    def log_rows(self) -> Sequence[DataclassInstance] | None:
        """Log one row per round."""
        return None

    def state(self) -> dict[str, Any]:
        """Return nothing: there is nothing to remember."""
        return {}

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement | None:
        """Go on as from the start."""
        return None

    def finish(self, run: TrainingRun) -> PruningPlan | None:
        """Return no plan: nothing was removed."""
        return None
