"""What one batch of images gives: values, gradients and curvatures, by node or by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

from prunecli.evaluation.outputs import check_label_range, first_tensor, image_losses
from prunecli.graph.emitting.emit import emit
from prunecli.graph.emitting.program import build, traced_name
from prunecli.signals.components import (
    BASE_INPUTS,
    METRICS,
    Signal,
)
from prunecli.signals.curvature import CurvatureRun, output_curvature, tracked
from prunecli.signals.sites import taps_of, tensor_names
from prunecli.signals.weights import Uses, layer_uses, of_whole_network, per_image, rows_of_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from prunecli.signals.subject import Subject


@dataclass(frozen=True)
class Needs:
    """What a pass must find: watched values, their derivatives, and those of which tensors."""

    nodes: frozenset[str]
    gradient: bool
    curvature: bool
    uses: Uses
    whole: tuple[str, ...]
    mean: tuple[str, ...]


HELD = 1 << 26
"""Scalars of the derivatives of single images with respect to one weight that are held at once."""


class Batch:
    """What one batch of images gives: values, gradients and curvatures by node or tensor."""

    def __init__(self, images: int, needs: Needs, subject: Subject) -> None:
        self.images, self.needs, self.subject = images, needs, subject
        self.values: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.curvatures: dict[str, Tensor] = {}
        self.of_images: dict[tuple[str, bool], Tensor] = {}

    def pieces(self, name: str) -> list[slice]:
        """Return the images whose derivatives of a tensor are held at once, a few at a time."""
        step = max(1, HELD // max(self.subject.tensors[name].numel(), 1))
        return [slice(at, min(at + step, self.images)) for at in range(0, self.images, step)]

    def derivative(self, name: str, few: slice, *, curved: bool) -> Tensor:
        """Return the derivatives of a tensor for a few images, `[images, *shape]`."""
        key = (name, curved)
        if key in self.of_images:
            return self.of_images[key][few]
        known, like = self.curvatures if curved else self.gradients, self.subject.tensors[name]
        batch, total = self.subject.trace.batch, None
        for use in self.needs.uses[name]:
            value = rows_of_images(self.values[use.source.name], use, self.images, batch)[few]
            given = rows_of_images(known[use.node.name], use, self.images, batch)[few]
            value = value.square() if curved else value
            found = per_image(use, value, given, like=like.detach())
            total = found if total is None else total + found
        assert total is not None
        return total

    def of_mean(self, name: str, *, curved: bool) -> Tensor:
        """Return the derivative of the batch's mean loss, `[1, *shape]`."""
        return (self.curvatures if curved else self.gradients)[name][None] / self.images

    def forget(self) -> None:
        """Let go of everything, so that no two batches are held at once."""
        for table in (self.values, self.gradients, self.curvatures, self.of_images):
            table.clear()


def needs_of(signals: Sequence[Signal], subject: Subject) -> Needs:
    """Return what the signals need of a pass."""
    bases = {name: BASE_INPUTS.get(name) for name in {signal.base_input for signal in signals}}
    nodes: set[str] = set()
    for base in bases.values():
        if base.activation:
            nodes |= {tap.node for tap in taps_of(subject, made=base.made)}
    single, mean = (
        sorted({n for b in bases.values() if not b.activation and b.per_image is per
                for n in tensor_names(subject, made=b.made)})
        for per in (True, False)
    )  # fmt: skip
    return needs_of_tensors(signals, subject, single=single, mean=mean, nodes=nodes)


def needs_of_tensors(
    signals: Sequence[Signal],
    subject: Subject,
    *,
    single: Sequence[str],
    mean: Sequence[str],
    nodes: Iterable[str] = (),
) -> Needs:
    """Return what signals need that look at these tensors and nodes.

    `single` are the tensors whose derivatives are those of single images, `mean` those of a batch.
    """
    metrics = [METRICS.get(signal.pointwise_metric) for signal in signals]
    uses = layer_uses(subject.trace, single)
    behind = (node for own in uses.values() for use in own for node in (use.source, use.node))
    return Needs(
        nodes=frozenset((*nodes, *(node.name for node in behind))),
        gradient=any(metric.needs_gradient for metric in metrics),
        curvature=any(metric.needs_curvature for metric in metrics),
        uses=uses,
        whole=tuple(name for name in single if name not in uses),
        mean=tuple(mean),
    )


def batches_of(signals: Sequence[Signal], subject: Subject) -> Iterable[Batch]:
    """Yield what every batch of the subject's images gives for the signals."""
    yield from derived(needs_of(signals, subject), subject)


def derived(needs: Needs, subject: Subject) -> Iterable[Batch]:
    """Yield what every batch of the subject's images gives."""
    assert subject.batches is not None
    everything = np.ones(subject.coupling.atom_count, np.bool_)
    module = build(emit(subject.trace, subject.coupling, everything), subject.tensors)
    for value in module.parameters():
        value.requires_grad_(False)
    for wanted in _named(module, needs.mean).values():
        wanted.requires_grad_()
    for inputs, labels in subject.batches():
        _check_answers(subject, labels)
        batch = Batch(len(labels), needs, subject)
        _differentiate(module, batch, inputs, labels)
        if needs.curvature:
            _curve(module, batch, inputs)
        if needs.whole:
            _one_by_one(module, batch, inputs, labels)
        yield batch
        batch.forget()


class Watcher(fx.Interpreter):
    """Runs a graph and keeps the values of watched nodes."""

    def __init__(self, module: fx.GraphModule, watched: frozenset[str]) -> None:
        super().__init__(module)
        self.watched = watched
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; derivatives can be asked for of what is watched."""
        result = super().run_node(n)
        if (name := traced_name(n)) in self.watched:
            result = self.values[name] = tracked(result)
        return result


def _named(module: fx.GraphModule, names: Iterable[str]) -> dict[str, Tensor]:
    stored = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: stored[name] for name in names}


def _differentiate(module: fx.GraphModule, batch: Batch, inputs: Tensor, labels: Tensor) -> None:
    """Run one batch; the loss is summed, so that every gradient is that of its own image."""
    watcher, needs = Watcher(module, batch.needs.nodes), batch.needs
    with torch.set_grad_enabled(needs.gradient):
        output = watcher.run(inputs)
        if needs.gradient:
            loss = image_losses(output, labels).sum()
            batch.gradients = pull(loss, {**live(watcher.values), **_named(module, needs.mean)})
    batch.values = {name: value.detach() for name, value in watcher.values.items()}


def live(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values that can have derivatives."""
    return {name: value for name, value in values.items() if value.is_floating_point()}


def pull(
    output: Tensor, of: Mapping[str, Tensor], vector: Tensor | None = None
) -> dict[str, Tensor]:
    """Return derivatives by name; what the loss does not depend on has zeros."""
    if not output.requires_grad:
        return {name: torch.zeros_like(value) for name, value in of.items()}
    found = torch.autograd.grad(
        output, list(of.values()), vector, allow_unused=True, materialize_grads=True
    )
    return dict(zip(of, found, strict=True))


def _curve(module: fx.GraphModule, batch: Batch, inputs: Tensor) -> None:
    """Carry curvatures back through one batch."""
    run = CurvatureRun(module, batch.needs.nodes)
    with torch.enable_grad():
        logits = first_tensor(run.run(inputs))
        of = {**live(run.values), **_named(module, batch.needs.mean)}
        batch.curvatures = pull(logits, of, output_curvature(logits))
    run.release()


def _one_by_one(module: fx.GraphModule, batch: Batch, inputs: Tensor, labels: Tensor) -> None:
    """Find the derivatives of tensors that not only layers use, through the whole network."""
    names = batch.needs.whole
    if batch.needs.gradient:
        found = of_whole_network(
            module, names, inputs, lambda output, label: _losses(output, label).sum(), labels
        )
        batch.of_images.update({(name, False): value for name, value in found.items()})
    if batch.needs.curvature:
        of = _named(module, names)
        rows = [_curvature_of_one(module, of, image[None]) for image in inputs]
        for name in of:
            batch.of_images[name, True] = torch.stack([row[name] for row in rows])


def _curvature_of_one(
    module: fx.GraphModule, of: Mapping[str, Tensor], image: Tensor
) -> dict[str, Tensor]:
    before = {name: value.requires_grad for name, value in of.items()}
    try:
        for value in of.values():
            value.requires_grad_()
        with torch.enable_grad():
            run = CurvatureRun(module, frozenset())
            logits = first_tensor(run.run(image))
            found = pull(logits, of, output_curvature(logits))
            run.release()
            return found
    finally:
        for name, value in of.items():
            value.requires_grad_(before[name])


def _losses(output: Any, labels: Tensor) -> Tensor:
    return functional.cross_entropy(first_tensor(output), labels, reduction="none")


def _check_answers(subject: Subject, labels: Tensor) -> None:
    """Check labels against the traced output, where no value may be looked at later."""
    output = next(node for node in subject.trace.graph.nodes if node.op == "output")
    check_label_range(tuple(output.all_input_nodes[0].meta["val"].shape), labels)
