"""The Hessian's diagonal by curvature propagation: approximation 1 of the taxonomy.

LeCun, Denker and Solla (Optimal Brain Damage, 1990): with `J` the Jacobian of a layer, the
curvature of its input is `h_in[i] = sum_o J[o, i]^2 h_out[o]`; the softmax starts with `p (1 - p)`.
Where a network branches, curvatures add up; the curvature of activation functions is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from prunecli.graph.emitting.program import traced_name
from prunecli.graph.operators import (
    AVERAGE_POOLS,
    CHANNEL_SHUFFLES,
    CONCATENATIONS,
    CONTRACTIONS,
    EMBEDDINGS,
    EXPANSIONS,
    FLIPS,
    INDEXINGS,
    LAYERS,
    MAX_POOLS,
    MOVES,
    PADS,
    REPETITIONS,
    is_pointwise,
    operator_name,
    schema_arguments,
)

Run = Callable[..., Any]
Tensors = tuple[Tensor, ...]
Rule = Callable[["Step"], "list[Tensor | None]"]


class Step:
    """One operator on its way back: how to run it, on what, and the curvature of its outputs."""

    def __init__(self, node: fx.Node, run: Run, inputs: Tensors, outputs: Tensors) -> None:
        self.node, self.run, self.inputs, self.curvature = node, run, inputs, outputs
        self.wanted: Sequence[bool] = ()

    def pull(self, inputs: Sequence[Tensor], at: int, vectors: Sequence[Tensor]) -> Tensor:
        """Return the vector-Jacobian product with respect to input `at`, at these inputs."""
        with torch.enable_grad():
            leaves = [value.detach() for value in inputs]
            leaf = leaves[at].requires_grad_()
            outputs = _tensors(self.run(*leaves))
            pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
            if not pairs:
                return torch.zeros_like(leaf)
            (found,) = torch.autograd.grad(
                [o for o, _ in pairs], [leaf], [v for _, v in pairs], materialize_grads=True
            )
        return found


def moved(step: Step) -> list[Tensor | None]:
    """Values move, or are summed with factors 0 and 1: curvatures go back as gradients do."""
    return _each(step, lambda at: step.pull(step.inputs, at, step.curvature))


def pointwise(step: Step) -> list[Tensor | None]:
    """Every output depends on one scalar of each argument: the squared derivative."""
    (curvature,) = step.curvature
    spread = [value.expand(curvature.shape) for value in step.inputs]
    ones = [torch.ones_like(curvature)]

    def back(at: int) -> Tensor:
        own = step.pull(spread, at, ones).square() * curvature
        return own.sum_to_size(step.inputs[at].shape)

    return _each(step, back)


def bilinear(step: Step) -> list[Tensor | None]:
    """Carry curvatures back by squared weights: a product of two tensors (and a bias)."""

    def back(at: int) -> Tensor:
        squared = [value if i == at else value.square() for i, value in enumerate(step.inputs)]
        return step.pull(squared, at, step.curvature)

    return _each(step, back)


def averaged(step: Step) -> list[Tensor | None]:
    """Every output is the mean of `k` inputs: curvatures shrink by `k^2`."""
    (curvature,) = step.curvature
    size = _averaged_over(step)
    if size is None:
        return sampled(step)
    return _each(step, lambda at: step.pull(step.inputs, at, [curvature / size]))


def sampled(step: Step) -> list[Tensor | None]:
    """Any operator: an unbiased estimate with one draw of random signs (Hutchinson).

    It is exact where no input has a say in two outputs.
    """
    # The same signs in every run.
    generator = torch.Generator().manual_seed(0)
    vectors = []
    for curvature in step.curvature:
        signs = torch.randint(0, 2, curvature.shape, generator=generator).to(curvature) * 2 - 1
        vectors.append(curvature.clamp(min=0).sqrt() * signs)
    return _each(step, lambda at: step.pull(step.inputs, at, vectors).square())


def _each(step: Step, back: Callable[[int], Tensor]) -> list[Tensor | None]:
    return [
        back(at) if wanted and value.is_floating_point() else None
        for at, (wanted, value) in enumerate(zip(step.wanted, step.inputs, strict=True))
    ]


def _averaged_over(step: Step) -> float | None:
    """Return over how many inputs every output is averaged; None where that differs."""
    (value, *_), (curvature, *_) = step.inputs, step.curvature
    name, arguments = operator_name(step.node.target), schema_arguments(step.node)
    if name.startswith("avg_pool"):
        kernel = _as_list(arguments["kernel_size"])
        even = not any(_as_list(arguments.get("padding", 0)))
        even = even or bool(arguments.get("count_include_pad", True))
        even = even and not arguments.get("ceil_mode") and not arguments.get("divisor_override")
        spatial = int(name[-2]) if len(kernel) == 1 else 1
        return float(math.prod(kernel * spatial)) if even else None
    sizes = zip(value.shape[-3:], curvature.shape[-3:], strict=False)
    if name.startswith("adaptive") and any(size % out for size, out in sizes if out):
        return None
    return value.numel() / max(curvature.numel(), 1)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


_MOVING = (
    MOVES
    | CONCATENATIONS
    | EXPANSIONS
    | FLIPS
    | INDEXINGS
    | REPETITIONS
    | CHANNEL_SHUFFLES
    | PADS
    | MAX_POOLS
    | EMBEDDINGS
    | {
        "amax", "clone", "dropout", "expand_as", "feature_dropout", "gather", "im2col",
        "index_select", "max", "pixel_shuffle", "pixel_unshuffle", "repeat_interleave", "roll",
        "stack", "sum", "unfold", "upsample_nearest2d",
    }
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVING, moved),
    **dict.fromkeys(LAYERS | CONTRACTIONS, bilinear),
    **dict.fromkeys(AVERAGE_POOLS | {"mean"}, averaged),
}
"""How curvatures go back through an operator; others are pointwise, or estimated (`sampled`)."""


class _Curved(torch.autograd.Function):
    """An operator whose backward carries curvatures instead of gradients."""

    @staticmethod
    def forward(ctx: Any, node: fx.Node, run: Run, rule: Rule, *inputs: Tensor) -> Any:
        ctx.node, ctx.run, ctx.rule = node, run, rule
        ctx.save_for_backward(*inputs)
        found = run(*(value.detach() for value in inputs))
        return tuple(found) if isinstance(found, list) else found

    @staticmethod
    def backward(ctx: Any, *curvature: Tensor) -> Any:
        step = Step(ctx.node, ctx.run, ctx.saved_tensors, curvature)
        step.wanted = ctx.needs_input_grad[3:]
        return None, None, None, *ctx.rule(step)


def _tensors(value: Any) -> list[Tensor]:
    return [item for item in pytree.tree_leaves(value) if isinstance(item, Tensor)]


def tracked(value: Tensor) -> Tensor:
    """Return a value with a gradient to come: a leaf where nothing before it has one."""
    if torch.is_grad_enabled() and value.is_floating_point() and not value.requires_grad:
        return value.detach().requires_grad_()
    return value


class CurvatureRun(fx.Interpreter):
    """Runs a graph such that `torch.autograd` carries curvatures back; keeps watched values."""

    def __init__(self, module: fx.GraphModule, watched: frozenset[str]) -> None:
        super().__init__(module)
        self.watched = watched
        self.values: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; every operator on something that needs a curvature is wrapped."""
        if n.op in {"call_function", "call_module"}:
            result = self._wrapped(n)
        else:
            result = super().run_node(n)
        if (name := traced_name(n)) in self.watched:
            result = self.values[name] = tracked(result)
        return result

    def release(self) -> None:
        """Let go of all values: their operators know this run, and would keep each other alive."""
        self.values.clear()
        self.env.clear()

    def _wrapped(self, node: fx.Node) -> Any:
        arguments, keywords = self.fetch_args_kwargs_from_env(node)
        leaves, structure = pytree.tree_flatten((arguments, keywords))
        slots = [at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]

        def run(*tensors: Tensor) -> Any:
            filled = list(leaves)
            for at, value in zip(slots, tensors, strict=True):
                filled[at] = value
            own, named = pytree.tree_unflatten(filled, structure)
            return getattr(self, node.op)(node.target, own, named)

        tensors = [leaves[at] for at in slots]
        if not any(value.requires_grad for value in tensors) or isinstance(arguments[0], tuple):
            return run(*tensors)  # nothing to carry, or an item of several outputs
        return _Curved.apply(node, run, _rule_of(node), *tensors)


def _rule_of(node: fx.Node) -> Rule:
    if node.op == "call_module":
        return pointwise  # batch norm and dropout in evaluation
    name = operator_name(node.target)
    return RULES.get(name) or (pointwise if is_pointwise(node.target) else sampled)


def output_curvature(logits: Tensor) -> Tensor:
    """Return `p (1 - p)`: the curvature of softmax cross-entropy with respect to its logits."""
    chance = logits.detach().softmax(-1)
    return chance * (1 - chance)
