"""A model that a verb has read from a file: what was read, the module, and its trace on demand."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunecli.architectures.examples import example_arguments
from prunecli.artefacts.dense import dense_shapes
from prunecli.artefacts.instantiate import instantiate
from prunecli.artefacts.origin import dense_architecture
from prunecli.artefacts.provenance import read
from prunecli.network.traced import read_network

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from prunecli.checkpoint import Checkpoint, Loaded
    from prunecli.network.traced import Network
    from prunecli.options import LoadOptions
    from prunecli.progress import Clock


@dataclass(frozen=True)
class Opened:
    """What was read, with the choices that it was read by, and the module in evaluation mode."""

    loaded: Loaded
    load: LoadOptions | None
    model: nn.Module

    @property
    def checkpoint(self) -> Checkpoint:
        """What the file holds."""
        return self.loaded.checkpoint

    @property
    def architecture(self) -> str:
        """What the model is, or was cut from."""
        return str(dense_architecture(self.checkpoint))

    def network(self, clock: Clock) -> Network:
        """Trace the model; the network knows what is known of earlier cuts."""
        example = example_arguments(self.checkpoint.input, self.model)
        network = read_network(self.model, example, clock=clock)
        return dataclasses.replace(network, dense_shapes=dense_shapes(self.checkpoint, self.load))


def open_model(path: Path, load: LoadOptions | None) -> Opened:
    """Read a model; raises what `read` and `instantiate` raise."""
    loaded = read(path, load)
    return Opened(loaded, load, instantiate(loaded.checkpoint))
