"""A small network and quick settings for training tests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunecli import data
from prunecli.architectures.reference import InputSpec
from prunecli.options import FinetuneOptions
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import load_images, make_recipe, reproducible
from prunecli.training.placing import start_run
from prunecli.training.session import Place, Session

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.progress import Progress, Step
    from prunecli.training.method import TrainingMethod

GREY = InputSpec(channels=1, height=8, width=8, mean=(0.3,), std=(0.35,))


QUICK = FinetuneOptions(epochs=2, batch_size=64, limit=320, amp="no")


def make_net(seed: int = 0, classes: int = 10) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(256, classes),
    )


def make_plain_net() -> nn.Sequential:
    """Return a network without batch norm and dropout: what it learns hangs on no split."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


PLAIN = dataclasses.replace(QUICK, augment="none", clip=1.0, ema=0.5)


def same(one: nn.Module, two: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


class StopError(Exception):
    """Stands for a kill: nothing catches it."""


def stop_at(done: int, error: type[BaseException]) -> Progress:
    """Return a listener that stops a training after some steps."""

    def progress(step: Step) -> None:
        if step.stage == "train" and step.done >= done:
            raise error

    return progress


FULL = dataclasses.replace(QUICK, epochs=3, ema=0.9, augment="crop", alpha=0.5)

SHORT = dataclasses.replace(QUICK, limit=160, batch_size=40)  # two epochs of four steps


def session_of(
    method: TrainingMethod | None,
    *,
    model: nn.Module | None = None,
    options: FinetuneOptions = SHORT,
    folder: Path | None = None,
    round_steps: int | None = None,
) -> Session:
    """Return a run on the digits that has not begun."""
    source = data.open_source("digits")
    train, held_out, _ = load_images(source, GREY, options, lambda _: None)
    recipe = make_recipe(
        source, train, input=GREY, options=options, teacher=None,
        accelerator=make_accelerator(options.amp), round_steps=round_steps,
    )  # fmt: skip
    run = start_run(model or make_net(), recipe, method)
    return Session(run, held_out=held_out, place=Place(folder, 300.0, {}))


def trained(method: TrainingMethod | None, **arguments: Any) -> Session:
    with reproducible():
        session = session_of(method, **arguments)
        session.train()
        session.finish()
    return session
