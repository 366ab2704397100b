"""The dense network that a cut one is timed beside."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from prunecli.architectures.examples import example_arguments
from prunecli.architectures.reference import GRAPH
from prunecli.architectures.registry import build_dense
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.origin import dense_architecture
from prunecli.artefacts.provenance import read
from prunecli.cost.flops import count_flops
from prunecli.options import LoadOptions

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.architectures.reference import ArchitectureRef, InputSpec
    from prunecli.checkpoint import Checkpoint


def dense_network(
    checkpoint: Checkpoint,
    against: Path | None,
    load: LoadOptions | None,
    warnings: list[str],
) -> nn.Module | None:
    """Return the dense network to time against; None (with a warning) where there is none."""
    if against is not None:
        return instantiate(read(against, _with_input(load, checkpoint)).checkpoint)
    architecture = dense_architecture(checkpoint)
    if architecture.name == GRAPH:
        warnings.append("no dense model to compare with: give it with --against")
        return None
    if architecture.is_factory and not _is_trusted(architecture, load):
        warnings.append(
            f"no dense model to compare with: it would take a call of {architecture.name}, which "
            f"the file names; allow it with --arch {architecture.name}, or use --against"
        )
        return None
    warnings.append(
        f"timed beside {architecture} with random weights; --against names the real dense model"
    )
    return randomised(build_dense(architecture, device="cpu"))


def _with_input(load: LoadOptions | None, checkpoint: Checkpoint) -> LoadOptions:
    """Return how the dense network is read: it takes what the pruned one does."""
    load, spec = load or LoadOptions(), checkpoint.input
    if load.input_size or load.input_shapes:
        return load
    if spec.is_images:
        return dataclasses.replace(load, input_size=(spec.height, spec.width))
    shapes = tuple((one.name, one.shape or (), one.dtype) for one in spec.tensors)
    return dataclasses.replace(load, input_shapes=shapes)


def dense_shapes(checkpoint: Checkpoint, load: LoadOptions | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes that the tensors of a network had before it was cut.

    Empty for a network that was never cut, and where nothing tells what it was cut from.
    """
    architecture = dense_architecture(checkpoint)
    unknown = architecture.is_factory and not _is_trusted(architecture, load)
    if checkpoint.plan is None or architecture.name == GRAPH or unknown:
        return {}
    dense = build_dense(architecture, device="meta").state_dict()
    return {name: tuple(value.shape) for name, value in dense.items()}


def _is_trusted(architecture: ArchitectureRef, load: LoadOptions | None) -> bool:
    """Tell whether the user, and not only the file, names the code that would be called."""
    return load is not None and (load.allow_pickle or load.architecture == architecture.name)


def randomised(model: nn.Module) -> nn.Module:
    """Fill a network with small random weights, in place: its speed is that of real ones."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            if not value.is_floating_point():
                continue
            if name.endswith("running_var"):
                value.fill_(1.0)
            else:
                value.normal_(0, max(1, value[0].numel() if value.dim() > 1 else 1) ** -0.5,
                              generator=generator)  # fmt: skip
    return model


def flops_ratio(slim: nn.Module, dense: nn.Module | None, spec: InputSpec) -> float | None:
    """Return how many times fewer FLOPs the slim network has, counted on the modules themselves."""
    if dense is None:
        return None
    counts = [count_flops(one, example_arguments(spec, one, batch=1)) for one in (dense, slim)]
    return counts[0] / max(counts[1], 1.0)
