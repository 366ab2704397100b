"""Runs of dynamic channel execution on handwritten digits."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from prunecli import data
from prunecli.budget import make_budget
from prunecli.methods.dynamic import DynamicChannels, DynamicOptions, uniform_widths
from prunecli.network.traced import Network, read_network
from prunecli.options import PruneOptions
from prunecli.training.devices import make_accelerator
from prunecli.training.finetune import load_images, make_recipe, reproducible
from prunecli.training.placing import start_run
from prunecli.training.session import Place, Session
from tests.support.training import GREY, QUICK

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from prunecli.options import FinetuneOptions

SHORT = dataclasses.replace(QUICK, limit=200, batch_size=40, epochs=3)  # 12 steps


def dynamic(
    model: nn.Module, *, flops: float = 0.4, align: int | None = 1, seed: int = 0, **options: Any
) -> DynamicChannels:
    """Return a method for networks of 8x8 pixels that keeps so many of the FLOPs."""
    network = digits_network(model)
    widths = uniform_widths(network, make_budget(flops=flops), PruneOptions(align=align)).widths
    return DynamicChannels(network, widths, DynamicOptions(**options), seed)


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


def trained(method: DynamicChannels, **arguments: Any) -> tuple[Session, Any]:
    """Return a run that has ended, and its plan."""
    with reproducible():
        session = session_of(method, **arguments)
        session.train()
        return session, session.finish()


def groups_kept(method: DynamicChannels, keep: np.ndarray) -> list[int]:
    return [int(keep[group.atoms].sum()) for group in method.network.coupling.groups]
