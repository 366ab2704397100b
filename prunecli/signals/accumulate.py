"""A signal added up over passes that somebody else runs, such as those of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from prunecli.preflight.pruning import no_images
from prunecli.signals.components import BASE_INPUTS, METRICS
from prunecli.signals.derive import Batch, Needs
from prunecli.signals.measure import RunningSums
from prunecli.signals.score import finished, point_of
from prunecli.signals.sites import taps_of
from prunecli.signals.sources import sources_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from prunecli.signals.subject import Subject

FIRST_ORDER = Needs(frozenset(), gradient=True, curvature=False, uses={}, whole=(), mean=())


def follows_training(name: str) -> bool:
    """Tell whether a signal follows from activations and gradients that training has anyway."""
    point = point_of(name)
    if point is None or not point.needs_data:
        return False
    metric = METRICS.get(point.pointwise_metric)
    return BASE_INPUTS.get(point.base_input).activation and not metric.needs_curvature


class Accumulator:
    """Running sums of one signal for which `follows_training` holds.

    `nodes` names the values that have to be given to `add`.
    """

    def __init__(self, name: str, subject: Subject) -> None:
        assert follows_training(name)
        point = point_of(name)
        assert point is not None
        base = BASE_INPUTS.get(point.base_input)
        self.name, self.point, self.subject = name, point, subject
        self.nodes = frozenset(tap.node for tap in taps_of(subject, made=base.made))
        self.sums = RunningSums({point.base_input: sources_of(point.base_input, subject)})
        self.sums.images = 0

    @torch.no_grad()
    def add(
        self, values: Mapping[str, Tensor], gradients: Mapping[str, Tensor], images: int
    ) -> None:
        """Add a batch: values by node, and the gradients of the loss of every image.

        The gradient of a batch's mean loss is that of an image's own loss over the number of
        images: whoever has the former multiplies.
        """
        batch = Batch(images, FIRST_ORDER, self.subject)
        batch.values.update(values)
        batch.gradients.update(gradients)
        self.sums.add([self.point], batch)
        self.sums.images += images

    def merge(self, total: Callable[[Tensor], Tensor]) -> None:
        """Make the sums those of several processes, of which `total` adds up a tensor."""
        self.sums.totals = {key: total(value) for key, value in self.sums.totals.items()}
        self.sums.images = int(total(torch.tensor(self.sums.images)))

    @torch.no_grad()
    def saliency(self) -> NDArray[np.float64]:
        """Return one saliency per atom, NaN where the signal cannot see it.

        Raises `InputError` before any batch was added, or for a saliency that is not finite.
        """
        if not self.sums.images:
            raise no_images(self.name)
        return finished(self.name, self.subject, self.sums.sites(self.point, self.subject))
