"""A new head on a trained network: the head alone first, then all, early layers at lower rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.modules.batchnorm import _NormBase

from prunecli.training.freezing import is_frozen
from prunecli.training.method import PlainMethod, Replacement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from prunecli.report import EpochReport
    from prunecli.training.method import TrainingRun
    from prunecli.training.optimizers import ParameterGroup

PARTS = 8
"""Parts of a backbone, from its first layers to its last, each with a learning rate of its own."""


class HeadFirst(PlainMethod):
    """Trains the layer `head` alone for some epochs, then all layers.

    Meanwhile the rest of the network stays bit for bit, statistics of batch norms included. Then
    the learning rate falls from the head, where it is that of the schedule, along a geometric line
    to `first_rate` of it at the first layers (Howard, Ruder 2018, arXiv 1801.06146, section 3.2,
    call these discriminative).
    """

    def __init__(self, head: str, *, epochs: int, first_rate: float) -> None:
        self.head, self.epochs, self.first_rate = head, epochs, first_rate
        self.alone = epochs > 0

    def start(self, run: TrainingRun) -> Replacement:
        """Leave the head alone in the optimiser, or all layers at their rates."""
        return self._go_on(run)

    def before_step(self, run: TrainingRun) -> None:
        """Keep the statistics of a backbone that is not trained."""
        if self.alone:
            for module in run.bare.modules():
                if isinstance(module, _NormBase):
                    module.eval()

    def after_round(self, run: TrainingRun, report: EpochReport) -> Replacement | None:
        """Go on with all layers, once the head had its epochs."""
        if not self.alone or report.epoch < self.epochs:
            return None
        self.alone = False
        for module in run.bare.modules():
            if isinstance(module, _NormBase):
                module.train(run.model.training)
        return self._go_on(run)

    def state(self) -> dict[str, Any]:
        """Return whether the head is trained alone."""
        return {"alone": self.alone}

    def restore(self, run: TrainingRun, state: Mapping[str, Any]) -> Replacement:
        """Go back to what was trained then."""
        self.alone = bool(state["alone"])
        return self._go_on(run)

    def _go_on(self, run: TrainingRun) -> Replacement:
        """Return the same network, with what is trained now in the optimiser."""
        frozen = run.recipe.options.freeze
        for name, parameter in run.bare.named_parameters():
            own = name.startswith(f"{self.head}.")
            parameter.requires_grad = (own or not self.alone) and not is_frozen(name, frozen)
        if self.alone:
            return Replacement.same_tensors(run.bare)
        decay = run.recipe.options.weight_decay
        groups = rates_of(run.bare, self.head, first_rate=self.first_rate, weight_decay=decay)
        return Replacement.same_tensors(run.bare, groups)


def rates_of(
    model: nn.Module, head: str, *, first_rate: float, weight_decay: float
) -> list[ParameterGroup]:
    """Return the trained parameters in front of the head in groups, each with its `lr_scale`.

    Weights and vectors are apart: vectors do not decay. Layers count in the order in which the
    network names them.
    """
    names = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(f"{head}.")
    ]
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    part = {layer: PARTS * at // len(layers) for at, layer in enumerate(layers)}
    groups: dict[tuple[int, bool], ParameterGroup] = {}
    for name in names:
        parameter = model.get_parameter(name)
        at, decays = part[name.rpartition(".")[0]], parameter.ndim > 1
        scale = first_rate ** (1 - at / PARTS)
        fresh = {"params": [], "lr_scale": scale, "weight_decay": weight_decay * decays}
        groups.setdefault((at, decays), fresh)["params"].append(parameter)
    return list(groups.values())


def head_epochs(epochs: int, asked: int | None) -> int:
    """Return for how many epochs the head is trained alone: as asked, or a quarter of them.

    >>> head_epochs(12, None), head_epochs(3, None), head_epochs(1, None), head_epochs(3, 0)
    (3, 1, 0, 0)
    """
    if asked is None:
        return max(epochs // 4, 1) if epochs > 1 else 0
    return asked
