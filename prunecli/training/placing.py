"""A network on its device with its optimiser and average, and another one put in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from prunecli.evaluation.memory import memory_format_for
from prunecli.graph.tracing.running import evaluating
from prunecli.training.average import ExponentialAverage
from prunecli.training.method import PlainMethod, Replacement, TrainingMethod, TrainingRun
from prunecli.training.optimizers import build_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator

    from prunecli.architectures.reference import InputSpec
    from prunecli.training.recipe import Recipe

    Moved = Callable[[str, Tensor], Tensor]


def start_run(
    student: nn.Module, recipe: Recipe, method: TrainingMethod | None = None
) -> TrainingRun:
    """Return the student on its device, in channels-last memory if it can, with its optimiser.

    The `method` (None: training alone) has begun then.
    """
    bare, memory_format = placed(student, recipe.input, recipe.accelerator)
    average = ExponentialAverage(bare, decay=recipe.options.ema) if recipe.options.ema else None
    optimizer = build_optimizer(bare, recipe.options)
    model, prepared = _prepared(bare, optimizer, recipe)
    run = TrainingRun(
        recipe=recipe,
        method=method or PlainMethod(),
        model=model,
        bare=bare,
        memory_format=memory_format,
        optimizer=prepared,
        average=average,
        steps=recipe.steps,
    )
    replace_network_(run, run.method.start(run))
    return run


@torch.no_grad()
def replace_network_(run: TrainingRun, replacement: Replacement | None) -> None:
    """Go on with another network: average and optimiser follow, all processes have to call this.

    None leaves the run as it is.
    """
    if replacement is None:
        return
    recipe, old, old_optimizer = run.recipe, run.bare, run.optimizer
    bare, run.memory_format = placed(replacement.module, recipe.input, recipe.accelerator)
    bare.train(run.model.training)
    if run.average is not None:
        follower = ExponentialAverage(bare, decay=run.average.decay)
        _move_tensors_(run.average.model, follower.model, replacement.moved)
        run.average = follower
    optimizer = build_optimizer(bare, recipe.options, replacement.groups)
    recipe.accelerator.free_memory()  # it would hold on to the networks before
    run.model, run.optimizer = _prepared(bare, optimizer, recipe)
    run.generation += bare is not old  # the tensors of the same network go on fitting it
    run.bare = bare
    move_optimizer_state_((old, old_optimizer), (bare, run.optimizer), replacement.moved)


def _prepared(bare: nn.Module, optimizer: Any, recipe: Recipe) -> tuple[nn.Module, Any]:
    """Return what accelerate makes of both for several processes, compiled if that is asked for.

    Every size of batch is compiled by itself: which one comes first does not change the numbers.
    """
    model, prepared = recipe.accelerator.prepare(bare, optimizer)
    if recipe.options.compile:
        model = cast("nn.Module", torch.compile(model, dynamic=False))
    return model, prepared


def move_optimizer_state_(
    old: tuple[nn.Module, Any], new: tuple[nn.Module, Any], moved: Moved
) -> None:
    """Give the new (network, optimiser) the state of the old one, moved as its parameters are.

    What has the shape of its parameter (momentum, Adam's moments) is moved; counters are copied.
    """
    before = dict(old[0].named_parameters())
    for name, parameter in new[0].named_parameters():
        known = old[1].state.get(before[name]) if name in before else None
        if known is None:
            continue
        new[1].state[parameter] = {
            key: _moved_entry(value, before[name], name, moved) for key, value in known.items()
        }


def _moved_entry(value: Any, parameter: Tensor, name: str, moved: Moved) -> Any:
    if not isinstance(value, Tensor):
        return value
    return moved(name, value).clone() if value.shape == parameter.shape else value.clone()


def _move_tensors_(old: nn.Module, new: nn.Module, moved: Moved) -> None:
    """Give the new network the tensors of the old one where both have them."""
    before = dict(old.named_parameters()) | dict(old.named_buffers())
    for name, tensor in (*new.named_parameters(), *new.named_buffers()):
        if name in before:
            tensor.copy_(moved(name, before[name]))


def placed(
    model: nn.Module, input_spec: InputSpec, accelerator: Accelerator
) -> tuple[nn.Module, torch.memory_format]:
    """Return a network on its device in the memory format that it runs best in, and that format."""
    moved = model.to(device=accelerator.device)
    with evaluating(moved):
        memory_format = memory_format_for(moved, input_spec)
    return moved.to(memory_format=memory_format), memory_format
