"""Dropout that a network is trained with, without modules of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from prunecli.training.regularizers.layers import ends_of_convolutions
from prunecli.training.regularizers.noise import Noise

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from prunecli.training.method import Batch, TrainingRun


class ConvolutionDropout(Noise):
    """Zeroes each output of the convolutions with probability `p`, and scales up the others.

    It acts on the output of the batch norm behind a convolution. In front of a ReLU that is the
    same as behind it, ReLU(c x) = c ReLU(x) for c >= 0; at the end of a residual branch it is
    where Khan, Stavness 2020 have it. Noise follows the seed, the epoch, the step and the process,
    as that of the network's own dropout does: the loop seeds torch's generator for every step.
    """

    def __init__(self, *, p: float) -> None:
        self.p = p
        self.training = False
        self.hooks: list[RemovableHandle] = []

    def start(self, run: TrainingRun) -> None:
        """Listen to the layers."""
        ends = ends_of_convolutions(run.bare, run.recipe.input)
        once = {id(layer): layer for layer in ends.values()}
        self.hooks = [layer.register_forward_hook(self._drop) for layer in once.values()]

    def before_step(self, run: TrainingRun) -> None:  # noqa: ARG002
        """Drop outputs of the pass to come."""
        self.training = True

    def after_backward(self, run: TrainingRun, batch: Batch) -> None:  # noqa: ARG002
        """Drop none of any other pass."""
        self.training = False

    def finish(self, run: TrainingRun) -> None:  # noqa: ARG002
        """Leave the network as it was."""
        for hook in self.hooks:
            hook.remove()

    def _drop(self, _layer: nn.Module, _given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return nn.functional.dropout(output, self.p) if self.training else output
