"""Runs of dynamic channel execution on handwritten digits, and a masked network to compare with."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunecli import data
from prunecli.budget import make_budget
from prunecli.methods.dynamic import DynamicChannels, DynamicOptions, uniform_widths
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import load_images, make_recipe, reproducible, trainable_copy
from prunecli.training.placing import start_run
from prunecli.training.session import Place, Session
from tests.support.training import GREY, QUICK

if TYPE_CHECKING:
    from pathlib import Path

    from prunecli.options import FinetuneOptions
    from prunecli.plan import PruningPlan

SHORT = dataclasses.replace(QUICK, limit=200, batch_size=40, epochs=3)  # 15 steps


class Plain(nn.Module):
    """Two convolutions with batch norm and a classifier; `masks` [n, channels] go behind either."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.bn2 = nn.BatchNorm2d(16)
        self.classifier = nn.Linear(256, 10)

    def forward(self, x, masks=None):
        x = self.bn1(self.conv1(x)).relu()
        x = x if masks is None else x * masks[0][:, :, None, None]
        x = self.bn2(self.conv2(x)).relu()
        x = x if masks is None else x * masks[1][:, :, None, None]
        return self.classifier(x.flatten(1))


def dynamic(
    model: nn.Module, *, flops: float = 0.4, align: int | None = 1, seed: int = 0, **options: Any
) -> DynamicChannels:
    """Return a method for networks of 8x8 pixels that keeps so many of the FLOPs."""
    return of_network(digits_network(model), flops=flops, align=align, seed=seed, **options)


def of_network(
    network: Network,
    *,
    flops: float = 0.4,
    align: int | None = 1,
    seed: int = 0,
    kind: type[DynamicChannels] = DynamicChannels,
    **options: Any,
) -> DynamicChannels:
    widths = uniform_widths(network, make_budget(flops=flops), PruneOptions(align=align)).widths
    network = dataclasses.replace(network, model=trainable_copy(network.model).eval())
    return kind(network, widths, DynamicOptions(**options), seed)


def digits_network(model: nn.Module) -> Network:
    return read_network(model.eval(), [torch.randn(2, 1, 8, 8)])


def session_of(
    method: DynamicChannels, *, options: FinetuneOptions = SHORT, folder: Path | None = None
) -> Session:
    """Return a run on the digits that has not begun."""
    source = data.open_source("digits")
    train, held_out, _ = load_images(source, GREY, options, lambda _: None)
    recipe = make_recipe(
        source, train, input=GREY, options=options, teacher=None,
        accelerator=make_accelerator(options.amp),
    )  # fmt: skip
    run = start_run(method.module, recipe, method)
    return Session(run, held_out=held_out, place=Place(folder, 300.0, {}))


def trained(method: DynamicChannels, **arguments: Any) -> tuple[Session, PruningPlan | None]:
    """Return a run that has ended, and its plan."""
    with reproducible():
        session = session_of(method, **arguments)
        session.train()
        return session, session.finish()
