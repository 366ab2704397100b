"""Derivatives of the loss of single images with respect to weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx
from torch.func import functional_call, grad, vjp, vmap
from torch.nn import functional

from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.signals.places import samples_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prunecli.graph.tracing.trace import Trace

PATCHES = 1 << 19
"""Scalars of image patches at a time: what fits a processor's cache."""

CHUNK = 16
"""Images at a time where a whole network is differentiated image by image."""


@dataclass(frozen=True)
class Use:
    """A layer that a weight or bias is an argument of: the node, and which argument."""

    node: fx.Node
    argument: str

    @property
    def source(self) -> fx.Node:
        """The node whose value the layer reads."""
        node: fx.Node = schema_arguments(self.node)["input"]
        return node


Uses = dict[str, tuple[Use, ...]]


def layer_uses(trace: Trace, names: Sequence[str]) -> Uses:
    """Return all uses of the tensors that only layers use, as weights or biases.

    Derivatives of these follow from what goes in and out of a layer; tensors that something else
    uses (a product, a sum, a view) are left out.
    """
    found: dict[str, list[Use]] = {}
    elsewhere: set[str] = set()
    for node in trace.graph.nodes:
        arguments = schema_arguments(node) if node.op == "call_function" else {}
        layer = _is_layer(node, arguments, trace.batch)
        for source in node.all_input_nodes:
            name = trace.tensors.get(source.name)
            if name is None:
                continue
            keys = [key for key in ("weight", "bias") if arguments.get(key) is source]
            if not layer or len(keys) != 1:
                elsewhere.add(name)
            else:
                found.setdefault(name, []).append(Use(node, keys[0]))
    return {name: tuple(found[name]) for name in names if name in found and name not in elsewhere}


def _is_layer(node: fx.Node, arguments: Mapping[str, Any], batch: Any) -> bool:
    """Tell whether a node is a layer that keeps images apart, along a dimension known to us."""
    if node.op != "call_function" or not isinstance(arguments.get("input"), fx.Node):
        return False
    operator, along = operator_name(node.target), samples_of(arguments["input"], batch)
    return operator in PRODUCERS and along is not None and (along == 0 or operator == "linear")


def rows_of_images(value: Tensor, use: Use, images: int, batch: Any) -> Tensor:
    """Return what goes in or out of a layer as `[images, rows, ...]`.

    An image that was split into windows has several rows.
    """
    if along := samples_of(use.source, batch):
        value = value.movedim(along, 0)
    return value.reshape(images, -1, *value.shape[1:])


def per_image(use: Use, value: Tensor, derivative: Tensor, *, like: Tensor) -> Tensor:
    """Return the derivatives of every image `[images, *shape of the weight]` from one layer.

    `value` is what the layer reads, `derivative` that of its output, both `[images, rows, ...]`.
    Curvatures follow in the same way from the squared value (its sum over positions).
    """
    operator, arguments = operator_name(use.node.target), schema_arguments(use.node)
    images = len(value)
    value, derivative = value.flatten(0, 1), derivative.flatten(0, 1)
    if use.argument == "bias":
        found = _of_bias(operator, derivative, arguments["weight"].meta["val"].dim())
    else:
        found = _FORMULAS.get(operator, _general)(Layer(use.node, like), value, derivative)
    if len(found) == images:
        return found
    return found.reshape(images, -1, *found.shape[1:]).sum(1)


def _of_bias(operator: str, derivative: Tensor, rank: int) -> Tensor:
    channel = derivative.dim() - 1 if operator == "linear" else derivative.dim() - rank + 1
    return derivative.movedim(channel, 1).flatten(2).sum(2) if derivative.dim() > 2 else derivative


@dataclass(frozen=True)
class Layer:
    """A layer's node and its weight."""

    node: fx.Node
    weight: Tensor


def _of_linear(_: Layer, value: Tensor, derivative: Tensor) -> Tensor:
    if value.dim() == 2:
        return derivative[:, :, None] * value[:, None, :]
    return derivative.flatten(1, -2).mT @ value.flatten(1, -2)


def _of_convolution(layer: Layer, value: Tensor, derivative: Tensor) -> Tensor:
    arguments, shape = schema_arguments(layer.node), layer.weight.shape
    if isinstance(arguments["padding"], str):
        return _general(layer, value, derivative)
    kernel, groups = (int(shape[2]), int(shape[3])), arguments["groups"]
    value = functional.pad(value, [side for pad in reversed(_pair(arguments["padding"]))
                                   for side in (pad, pad)])  # fmt: skip
    rows = derivative.reshape(len(value), groups, -1, derivative[0, 0].numel())
    found = value.new_empty((len(value), groups, *rows.shape[2:3], shape[1:].numel()))
    each = max(1, PATCHES // max(shape[1:].numel() * groups * rows.shape[-1], 1))
    for start in range(0, len(value), each):
        few = slice(start, start + each)
        patches = _patches(value[few], kernel, arguments["stride"], arguments["dilation"])
        patches = patches.reshape(len(patches), groups, -1, rows.shape[-1])
        found[few] = (patches @ rows[few].mT).mT
    return found.reshape(len(value), *shape)


def _patches(
    value: Tensor, kernel: tuple[int, int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """Return `[images, channels, kernel height, kernel width, height, width]`, a view."""
    for dim, (size, step, apart) in enumerate(
        zip(kernel, _pair(stride), _pair(dilation), strict=True), start=2
    ):
        reach = apart * (size - 1) + 1
        value = value.unfold(dim, reach, step)[..., ::apart]
    return value.permute(0, 1, 4, 5, 2, 3)


def _pair(numbers: Sequence[int]) -> Sequence[int]:
    return (numbers[0], numbers[-1])


def _general(layer: Layer, value: Tensor, derivative: Tensor) -> Tensor:
    """Any layer: one vector-Jacobian product of this layer alone, mapped over images."""
    target: Any = layer.node.target
    keys = [argument.name for argument in target._schema.arguments]  # noqa: SLF001
    known = schema_arguments(layer.node)

    def run(weight: Tensor, source: Tensor) -> Tensor:
        filled = {**known, "input": source[None], "weight": weight, "bias": None}
        result: Tensor = target(*(filled[key] for key in keys))
        return result[0]

    def one(source: Tensor, vector: Tensor) -> Tensor:
        pull = vjp(lambda weight: run(weight, source), layer.weight)[1]
        found: Tensor = pull(vector)[0]
        return found

    found: Tensor = vmap(one)(value, derivative)
    return found


_FORMULAS: dict[str, Callable[[Layer, Tensor, Tensor], Tensor]] = {
    "linear": _of_linear,
    "conv2d": _of_convolution,
}


def of_whole_network(
    module: fx.GraphModule,
    names: Sequence[str],
    inputs: Tensor,
    loss: Callable[[Any, Tensor], Tensor],
    labels: Tensor,
) -> dict[str, Tensor]:
    """Return the gradients `[images, *shape]` of tensors by `torch.func`, through everything.

    `loss(output, label)` is that of one image; each is run through the whole network.
    """
    stored = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    own = {name: stored[name].detach() for name in names}

    def of_one(tensors: Mapping[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(module, dict(tensors), (image[None],)), label[None])

    mapped = vmap(grad(of_one), in_dims=(None, 0, 0), chunk_size=CHUNK)
    return dict(mapped(own, inputs, labels))
