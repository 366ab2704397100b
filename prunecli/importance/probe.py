"""Probe gain: how much better a linear classifier gets from one layer to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from prunecli.errors import InputError
from prunecli.graph.coupling.groups import STAYS
from prunecli.importance.measure import SMALLEST, Measured, Numbers, register
from prunecli.progress import Step
from prunecli.signals.places import read_taps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunecli.graph.coupling.groups import ChannelGroup
    from prunecli.signals.places import Tap

RIDGE = 0.01
"""Weight of the squared coefficients beside the mean squared error, on standardised features."""


@register(
    "probe",
    summary="Fall of a linear probe's error from the layer before, on pooled activations.",
    needs_data=True,
)
def probe(measured: Measured) -> Numbers:
    """Return, per group, by how much the error of a probe falls where the group is first read.

    A ridge regression to the classes is fitted on every second image and scored on the others, on
    the globally pooled values of every activation that channels are read from, in the order of
    execution; the input comes first. What counts is the fall below the least error so far, so that
    all falls sum to that of the whole network, also where shortcuts carry features past a layer. It
    goes, in equal parts, to the groups that are read there for the first time, or else (residual
    streams) to all that are read there. Nothing is less than 1 % of the whole fall. NaN for a group
    whose activations cannot be pooled.
    """
    groups = measured.network.coupling.groups
    read = _Pools(measured)
    images, labels = read.run()
    fit = torch.arange(len(labels)) % 2 == 0
    error = start = probe_error(images, labels, fit)
    found = np.full(len(groups), np.nan)
    for tap in read.taps:
        members = _groups_of(tap, groups)
        unseen = [at for at in members if np.isnan(found[at])]
        found[unseen] = 0.0
        now = probe_error(torch.cat(read.pooled[tap.node, tap.dim]), labels, fit)
        found[unseen or members] += max(error - now, 0.0) / max(len(unseen or members), 1)
        error = min(error, now)
    if error >= start:
        raise InputError(
            f"no probe is better than that of the input ({start:.1%} errors on "
            f"{int((~fit).sum())} images)",
            code="NO_PROBE_GAIN",
            hint="give more images, or take another --importance",
        )
    return np.asarray(np.maximum(found, SMALLEST * (start - error)))


def probe_error(features: Tensor, labels: Tensor, fit: Tensor) -> float:
    """Return the share of images outside `fit` that a ridge classifier fitted inside gets wrong.

    `features` is `[images, n]`, `labels` `[images]`. Features are standardised, classes are coded
    as one-hot columns less their means.
    """
    inside, outside = features[fit].double(), features[~fit].double()
    mean, scale = inside.mean(0), inside.std(0, correction=0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    inside, outside = (inside - mean) / scale, (outside - mean) / scale
    classes = functional.one_hot(labels, int(labels.max()) + 1).double()
    targets = classes[fit]
    level = targets.mean(0)
    penalty = RIDGE * len(inside)
    if inside.shape[1] > len(inside):  # the same solution from the smaller of two systems
        kernel = inside @ inside.T + penalty * torch.eye(len(inside), dtype=torch.float64)
        weights = inside.T @ torch.linalg.solve(kernel, targets - level)
    else:
        moments = inside.T @ inside + penalty * torch.eye(inside.shape[1], dtype=torch.float64)
        weights = torch.linalg.solve(moments, inside.T @ (targets - level))
    guesses = (outside @ weights + level).argmax(1)
    return float((guesses != labels[~fit]).double().mean())


def _groups_of(tap: Tap, groups: Sequence[ChannelGroup]) -> list[int]:
    starts = np.asarray([group.first for group in groups])
    atoms = tap.atoms[tap.atoms != STAYS]
    return [int(at) for at in np.unique(np.searchsorted(starts, atoms, side="right") - 1)]


@dataclass
class _Pools:
    """Runs the network over all images and keeps, of every tap, the means over positions."""

    measured: Measured
    pooled: dict[tuple[str, int], list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.measured.network
        graph, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
        assert isinstance(graph, fx.GraphModule)
        self.graph = graph
        place = {node.name: at for at, node in enumerate(graph.graph.nodes)}
        taps = read_taps(network.trace, network.coupling)
        per_image = [tap for tap in taps if tap.samples is not None and tap.samples != tap.dim]
        self.taps = sorted(per_image, key=lambda tap: (place[tap.node], tap.dim))

    def run(self) -> tuple[Tensor, Tensor]:
        """Return the pooled images and the labels; raise `InputError` for other labels."""
        images, labels = [], []
        with torch.no_grad():
            for batch, truth in self.measured.images():
                if truth.dim() != 1 or truth.is_floating_point():
                    raise InputError(
                        f"a probe needs one class per image, not labels {list(truth.shape)}",
                        code="NOT_A_CLASSIFIER",
                        hint="take --importance energy",
                    )
                _Watch(self, len(truth)).run(batch)
                images.append(batch.flatten(2).mean(2) if batch.dim() > 2 else batch)
                labels.append(truth)
                self.measured.progress(Step("importance", sum(map(len, labels))))
        if len(labels) == 0 or sum(map(len, labels)) < 2:
            raise InputError(
                "there are no images to measure the importance on", code="IMPORTANCE_NEEDS_DATA"
            )
        return torch.cat(images), torch.cat(labels)


class _Watch(fx.Interpreter):
    """Keeps the pooled values of taps while a batch runs through."""

    def __init__(self, pools: _Pools, images: int) -> None:
        super().__init__(pools.graph)
        self.pools, self.images = pools, images
        self.at: dict[str, list[Tap]] = {}
        for tap in pools.taps:
            self.at.setdefault(tap.node, []).append(tap)

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and pool what comes out where a tap is."""
        value = super().run_node(n)
        for tap in self.at.get(n.name, ()):
            assert tap.samples is not None
            rows = value.movedim((tap.samples, tap.dim), (0, 1))
            means = rows.reshape(*rows.shape[:2], -1).mean(2)
            own = means.reshape(self.images, -1, rows.shape[1]).mean(1)
            self.pools.pooled.setdefault((tap.node, tap.dim), []).append(own)
        return value
