"""The repairs themselves, each over one walk of the dense and the cut network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from prunecli.graph.operators import LINEAR, PLANE_CONVOLUTIONS
from prunecli.least_squares.equations import CHUNK, ROWS, Draw, NormalEquations
from prunecli.progress import Progress, Step
from prunecli.registry import Registry
from prunecli.repair.layers import Affine, BatchNorm, Layer, Layers, affine_of, take
from prunecli.repair.lockstep import Lockstep

if TYPE_CHECKING:
    from prunecli.evaluation.batches import BatchSource


@dataclass(frozen=True)
class Patient:
    """A cut network and the dense one as graphs, and the images to compare them on.

    `slim` is changed in place; `cut` is its state before any repair. The dense one is only read.
    """

    dense: fx.GraphModule
    slim: fx.GraphModule
    cut: Mapping[str, Tensor]
    layers: Layers
    batches: BatchSource
    images: int
    progress: Progress


@dataclass(frozen=True)
class Done:
    """How many layers a repair changed, and why it left others, with counts.

    `fewest` are the images that the layer with the fewest of them was repaired on; None: all.
    """

    layers: int
    skipped: Mapping[str, int]
    fewest: int | None = None


NOTHING = Done(0, {})
Repair = Callable[[Patient], Done]
REPAIRS: Registry[Repair] = Registry("repair")


@REPAIRS.register(
    "bn", summary="Estimate the statistics of batch norm anew.", source="Li et al. 2020 (EagleEye)"
)
def estimate_norms_(patient: Patient) -> Done:
    """Set mean and variance of every batch norm behind a cut to those of its input, in order."""
    return _over_norms(patient, "bn", _set_statistics_)


def follow_norms_(patient: Patient) -> Done:
    """Let the statistics of batch norm be those of its input, and scale and shift make up for it.

    What the network computes in evaluation stays as it is. In training, where a batch norm takes
    the statistics of the batch, it now computes about the same: a layer that was refitted varies
    less than the one before the cut, and training would begin from another function than the one
    that was refitted. Source: ours.
    """
    return _over_norms(patient, "statistics", _follow_statistics_)


def _over_norms(patient: Patient, name: str, change_: Callable[[BatchNorm, Moments], str]) -> Done:
    calls = Counter(str(node.target) for node in patient.slim.graph.nodes)
    nodes = [node for node in patient.slim.graph.nodes if node.name in patient.layers.norms]
    skipped: Counter[str] = Counter()
    changed = 0
    walk = Lockstep([patient.slim], _images(patient), images=patient.images)
    for at, node in enumerate(nodes):
        patient.progress(Step(f"repair {name}", at, len(nodes)))
        norm = patient.slim.get_submodule(str(node.target))
        assert isinstance(norm, BatchNorm)
        if calls[str(node.target)] > 1:
            skipped["its batch norm is used more than once"] += 1
            continue
        source = node.all_input_nodes[0].name
        moments = Moments()
        for (values,) in walk.upto(node.name):
            moments.add(values[source])
        reason = change_(norm, moments)
        skipped.update([reason] if reason else [])
        changed += not reason
    return Done(changed, dict(skipped), walk.fewest)


def _set_statistics_(norm: BatchNorm, moments: Moments) -> str:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.variance)
    return ""


def _follow_statistics_(norm: BatchNorm, moments: Moments) -> str:
    if not norm.affine:
        return "its batch norm has no scale"
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.bias.copy_(norm.bias.double() + scale * (moments.mean - norm.running_mean.double()))
    norm.weight.copy_(scale * (moments.variance + norm.eps).sqrt())
    return _set_statistics_(norm, moments)


class Moments:
    """Mean and variance per channel (dimension 1), summed in float64 around the first mean."""

    def __init__(self) -> None:
        self.count = 0
        self.center = self.first = self.second = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Add a batch `[n, channels, ...]`."""
        rows = values.transpose(0, 1).flatten(1).double()
        if not self.count:
            # Sums of squares around a value near the mean lose no digits.
            self.center = rows.mean(1)
        rows = rows - self.center[:, None]
        self.count += rows.shape[1]
        self.first = self.first + rows.sum(1)
        self.second = self.second + rows.square().sum(1)

    @property
    def mean(self) -> Tensor:
        """The mean `[channels]`."""
        return self.center + self.first / self.count

    @property
    def variance(self) -> Tensor:
        """The unbiased variance `[channels]`, which torch stores."""
        spread = self.second - self.first.square() / self.count
        return (spread / max(self.count - 1, 1)).clamp_min(0)


@REPAIRS.register(
    "bias",
    summary="Shift every channel behind a cut to its dense mean.",
    source="Nagel et al. 2019",
)
def compensate_means_(patient: Patient) -> Done:
    """Give every channel behind a cut its dense mean, by bias or batch norm, in order."""
    return _followed(patient, _over_layers(patient, "bias", _shift_))


@REPAIRS.register(
    "lstsq",
    summary="Least squares: refit every layer behind a cut to its dense outputs.",
    source="He et al. 2017",
)
def reconstruct_(patient: Patient) -> Done:
    """Refit every layer behind a cut to the dense outputs, in order, whatever was done before."""
    # Batch norm that was estimated anew does not fit the dense outputs.
    patient.slim.load_state_dict(patient.cut)
    return _followed(patient, _over_layers(patient, "lstsq", _refit_))


def _followed(patient: Patient, done: Done) -> Done:
    """Let batch norm follow what a repair has changed; return what both have done."""
    norms = follow_norms_(patient)
    skipped = dict(Counter(done.skipped) + Counter(norms.skipped))
    fewest = [count for count in (done.fewest, norms.fewest) if count is not None]
    return Done(done.layers, skipped, min(fewest, default=None))


Pairs = Iterator[tuple[Tensor, Tensor]]
"""Per batch: what a layer reads in the cut network, and what it should make of it."""


@dataclass(frozen=True)
class Shown:
    """About how many images a layer is shown, and its pairs, which can be asked for once."""

    images: int
    pairs: Callable[[], Pairs]


def _over_layers(
    patient: Patient, name: str, change_: Callable[[Patient, Layer, Shown], str]
) -> Done:
    skipped = Counter(patient.layers.skipped)
    changed = 0
    both = Lockstep([patient.dense, patient.slim], _images(patient), images=patient.images)
    for at, layer in enumerate(patient.layers.found):
        patient.progress(Step(f"repair {name}", at, len(patient.layers.found)))
        images = both.images_from(layer.node, layer.node)
        reason = change_(patient, layer, Shown(images, partial(_pairs, patient, layer, both)))
        skipped.update([reason] if reason else [])
        changed += not reason
    return Done(changed, dict(skipped), both.fewest)


def _images(patient: Patient) -> Iterator[Tensor]:
    for images, _ in patient.batches():
        yield images


def _pairs(patient: Patient, layer: Layer, both: Lockstep) -> Pairs:
    """Yield what a layer reads, and its dense output as the cut network is to have it.

    The wanted output stands before the batch norm of the cut network. Where the result is added to
    a shortcut, it makes up for what the shortcut has lost.
    """
    before = _norm(patient.dense, layer)
    after = _norm(patient.slim, layer)
    for whole, cut in both.upto(layer.node, layer.node, through=(True, False)):
        parts = [whole[layer.node], cut[layer.source]]
        joined = whole.get(layer.dense_shortcut or "")
        if layer.shortcut and joined is not None and joined.shape == whole[layer.node].shape:
            parts += [joined, cut[layer.shortcut]]
        # Targets are float64: some images at a time.
        at_once = max(1, CHUNK // max(part[0].numel() for part in parts))
        pieces = (torch.split(part, at_once) for part in parts)
        for made, source, *shortcut in zip(*pieces, strict=True):
            wanted = _rows(made, layer).double()
            if before is not None:
                wanted = take(before, layer.rows).on(wanted)
            if shortcut and shortcut[1].shape == wanted.shape:
                wanted = wanted + (_rows(shortcut[0], layer).double() - shortcut[1])
            yield source, wanted if after is None else _inverse(after).on(wanted)


def _rows(values: Tensor, layer: Layer) -> Tensor:
    index = torch.as_tensor(layer.rows, device=values.device)
    return values.index_select(layer.channel_dim, index)


def _norm(network: fx.GraphModule, layer: Layer) -> Affine | None:
    return None if layer.norm is None else affine_of(_norm_module(network, layer.norm))


def _norm_module(network: fx.GraphModule, name: str) -> BatchNorm:
    module = network.get_submodule(name)
    assert isinstance(module, BatchNorm)
    return module


SILENT = 1e-6
"""A batch norm that scales by less than this share of its largest scale passes nothing on."""


def _inverse(affine: Affine) -> Affine:
    """Return the inverse map; zero for channels of which the norm passes nothing on."""
    heard = affine.scale.abs() > SILENT * affine.scale.abs().max()
    scale = torch.where(heard, 1 / affine.scale, 0)
    return Affine(scale, -affine.shift * scale)


def _heard(patient: Patient, layer: Layer) -> Tensor:
    """Tell of which output channels the batch norm behind a layer passes anything on."""
    affine = _norm(patient.slim, layer)
    if affine is None:
        weight = patient.slim.get_parameter(layer.weight)
        return torch.ones_like(weight.flatten(1)[:, 0], dtype=torch.bool)
    return _inverse(affine).scale != 0


def _shift_(patient: Patient, layer: Layer, shown: Shown) -> str:
    if not layer.has_intercept:
        return "it has neither bias nor batch norm"
    weight = patient.slim.get_parameter(layer.weight)
    bias = None if layer.bias is None else patient.slim.get_parameter(layer.bias)
    moments = Moments()
    for inputs, wanted in shown.pairs():
        made = RUN[layer.operator](inputs, weight, bias, layer.arguments)
        moments.add((wanted - made).movedim(layer.channel_dim, 1))
    _add_constant_(patient, layer, moments.mean)
    return ""


def _add_constant_(patient: Patient, layer: Layer, constant: Tensor) -> None:
    """Add a constant to every output channel of a layer: in its bias, or in the norm behind it."""
    constant = torch.where(_heard(patient, layer), constant, 0)
    if layer.bias is not None:
        patient.slim.get_parameter(layer.bias).add_(constant)
        return
    assert layer.norm is not None
    mean = _norm_module(patient.slim, layer.norm).running_mean
    assert mean is not None
    mean.sub_(constant)


def _refit_(patient: Patient, layer: Layer, shown: Shown) -> str:
    weight = patient.slim.get_parameter(layer.weight)
    groups = int(layer.arguments.get("groups", 1))
    start = weight.detach().reshape(groups, len(weight) // groups, -1).mT
    equations = NormalEquations(start, intercept=layer.has_intercept)
    rows, draw = ROWS[layer.operator], Draw(shown.images)
    for inputs, wanted in shown.pairs():
        for columns, targets in rows(inputs, [wanted], weight, layer.arguments, draw):
            equations.add(columns, targets)
    found, constant = equations.solve()
    if not bool(found.isfinite().all()):
        return "its equations have no finite solution"
    fitted = found.mT.reshape(weight.shape)
    heard = _heard(patient, layer).view(-1, *(1,) * (weight.dim() - 1))
    weight.copy_(torch.where(heard, fitted, weight.double()))
    if layer.bias is not None:
        bias = patient.slim.get_parameter(layer.bias)
        bias.copy_(torch.where(_heard(patient, layer), 0, bias))
    if layer.has_intercept:
        _add_constant_(patient, layer, constant.flatten())
    return ""


def _run_convolution(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, arguments: Mapping[str, Any]
) -> Tensor:
    moved = (arguments[name] for name in ("stride", "padding", "dilation", "groups"))
    made: Tensor = getattr(functional, f"conv{weight.dim() - 2}d")(inputs, weight, bias, *moved)
    return made


def _run_product(
    inputs: Tensor, weight: Tensor, bias: Tensor | None, _: Mapping[str, Any]
) -> Tensor:
    return functional.linear(inputs, weight, bias)


Run = Callable[[Tensor, Tensor, Tensor | None, Mapping[str, Any]], Tensor]

RUN: dict[str, Run] = {
    **dict.fromkeys(PLANE_CONVOLUTIONS, _run_convolution),
    **dict.fromkeys(LINEAR, _run_product),
}
