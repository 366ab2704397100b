"""Which memory layout a network can be run in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

    from prunecli.architectures.reference import InputSpec


def memory_format_for(model: nn.Module, input_spec: InputSpec) -> torch.memory_format:
    """Return channels-last, or contiguous for a network that cannot be run in it.

    A `view` in a network asks for the strides that its author saw; one small batch tells. The
    network is to be in eval mode.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    probe = torch.zeros(2, *input_spec.shape, device=device)
    try:
        with torch.no_grad():
            model(probe.to(memory_format=torch.channels_last))
    except RuntimeError:  # whatever else is wrong with it, its first real batch will say
        return torch.contiguous_format
    return torch.channels_last
