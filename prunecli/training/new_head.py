"""The classifier at the end of a network, and another one in its place."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunecli.architectures.examples import example_tensors
from prunecli.architectures.inputs import check_takes_images
from prunecli.errors import InputError
from prunecli.evaluation.outputs import class_logits
from prunecli.graph.tracing.running import evaluating

if TYPE_CHECKING:
    from prunecli.architectures.reference import InputSpec


def head_of(model: nn.Module, spec: InputSpec) -> str:
    """Return the path of the linear layer whose output is the logits, by one run.

    Raises `InputError` (`NO_HEAD`) where no such layer ends the network.
    """
    check_takes_images(spec)
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(_keeping(found, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    place = next((value.device for value in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model), torch.no_grad():
            logits, _ = class_logits(model(example_tensors(spec)[0].to(place)))
    finally:
        for hook in hooks:
            hook.remove()
    ends = [name for name, output in found.items() if torch.equal(output.float(), logits)]
    if not ends or not ends[-1]:
        raise InputError(
            "the model does not end in a linear layer whose output is its logits",
            code="NO_HEAD",
            where=type(model).__name__,
            hint="make the model with as many classes as the data has, and leave --new-head out",
        )
    return ends[-1]


def _keeping(found: dict[str, Tensor], name: str) -> Any:
    def hook(_module: nn.Module, _given: Any, output: Tensor) -> None:
        found[name] = output

    return hook


def with_new_head(
    model: nn.Module, spec: InputSpec, *, classes: int, seed: int
) -> tuple[nn.Module, str]:
    """Return a copy of a classifier with an untrained linear layer for `classes` at its end.

    Its weights are drawn as torch draws those of linear layers; biases are zero. The second part is
    the path of the layer. Raises what `head_of` raises.
    """
    path = head_of(model, spec)
    changed = copy.deepcopy(model)
    before = changed.get_submodule(path)
    assert isinstance(before, nn.Linear)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(before.in_features, classes, bias=before.bias is not None)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    head.to(before.weight.device, before.weight.dtype).train(before.training)
    holder, _, leaf = path.rpartition(".")
    setattr(changed.get_submodule(holder), leaf, head)
    return changed, path
