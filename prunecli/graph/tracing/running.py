"""Run a network on other tensors than its own, and hold modules in a mode."""

from __future__ import annotations

import random
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx
from torch.func import functional_call
from torch.utils import _pytree as pytree

from prunecli.graph.tracing.fake_quantizers import OBSERVES, at_rest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Hold models in evaluation mode, then restore the mode of every module.

    Fake quantisers observe nothing meanwhile.
    """
    with _held(models, training=False), at_rest(*models, switch=OBSERVES):
        yield


@contextmanager
def in_training(*models: nn.Module) -> Iterator[None]:
    """Hold models in training mode, then restore the mode of every module."""
    with _held(models, training=True):
        yield


@contextmanager
def _held(models: Sequence[nn.Module], *, training: bool) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        with suppress(NotImplementedError):  # an exported program has the mode that it has
            model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def buffers_kept(*models: nn.Module) -> Iterator[None]:
    """Give buffers back what they held: a forward may write to them in evaluation mode too."""
    buffers = {id(value): value for model in models for value in model.buffers()}
    held = [(value, value.detach().clone()) for value in buffers.values()]
    try:
        yield
    finally:
        with torch.no_grad():
            for value, content in held:
                if not torch.equal(value, content):
                    value.copy_(content)


@contextmanager
def draws_kept(*models: nn.Module) -> Iterator[None]:
    """Give every generator of random numbers back the state that it had."""
    devices = {value.device for model in models for value in model.parameters()}
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - users draw from it
    try:
        with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)  # noqa: NPY002


def arguments_of(model: nn.Module, inputs: Sequence[Any]) -> list[Any]:
    """Return the arguments of a network; a graph takes the tensors inside of them one by one."""
    if not isinstance(model, fx.GraphModule):
        return list(inputs)
    taken, leaves = model.graph.find_nodes(op="placeholder"), pytree.tree_leaves(list(inputs))
    return leaves if len(taken) == len(leaves) else list(inputs)


def run_with(model: nn.Module, tensors: Mapping[str, Tensor], inputs: Sequence[Any]) -> Any:
    """Run a forward with some parameters and buffers replaced by those of the same (first) name.

    Every place is replaced once, also in a module that is registered under two names, and a tied
    parameter at all of its places. Raises what the forward raises.
    """
    # torch's own search for ties replaces a place under each of its names, and then puts the wrong
    # tensor back: the caller's network would keep the replacement.
    first: dict[int, str] = {}
    places: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        for leaf, value in (*module._parameters.items(), *module._buffers.items()):  # noqa: SLF001
            if value is None:
                continue
            place = f"{path}.{leaf}" if path else leaf
            name = first.setdefault(id(value), place)
            if name in tensors:
                places[place] = tensors[name]
    return functional_call(model, places, tuple(inputs), tie_weights=False)
