"""What channels hold over images, everywhere they are read: the range and the mean."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from prunecli.progress import Progress, Step, silent
from prunecli.proof.inputs import random_like
from prunecli.signals.places import readings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from prunecli.graph.coupling.groups import Atoms
    from prunecli.network.traced import Network

TOLERANCE = 1e-6
"""A channel is constant at a place where it moves by no more than this share of the largest value.

That is what rounding in float32 leaves of a constant.
"""


@dataclass(frozen=True)
class Place:
    """A value that the node `reader` reads channels from, along `dim` of the node `source`."""

    reader: str
    source: str
    dim: int
    atoms: Atoms


@dataclass(frozen=True)
class Seen:
    """What a place holds over the images: least, largest and mean value of every position."""

    place: Place
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: NDArray[np.float64]

    @cached_property
    def _slack(self) -> float:
        return TOLERANCE * float(max(np.abs(self.low).max(), np.abs(self.high).max()))

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Whether a position is the same for all images and everywhere in them."""
        return np.asarray(self.high - self.low <= self._slack)

    @cached_property
    def value(self) -> NDArray[np.float64]:
        """The mean of every position; 0 for what is no more than rounding."""
        return np.where(np.abs(self.mean) <= self._slack, 0.0, self.mean)


def places_of(network: Network) -> list[Place]:
    """Return every place that channels are read from, once per reader."""
    found = {}
    for reader, source, dim in readings(network.trace):
        atoms = network.coupling.values.get(source.name, {}).get(dim)
        if atoms is not None:
            key = (reader.name, source.name, dim)
            found[key] = Place(*key, atoms)
    return list(found.values())


def look(
    network: Network,
    inputs: Iterable[Sequence[Any]],
    *,
    progress: Progress = silent,
) -> list[Seen]:
    """Return what every place holds while the dense network runs on `inputs`.

    Each item of `inputs` holds the arguments of one forward. Nothing is kept of an image but sums.
    """
    places = places_of(network)
    module, _ = network.graph_network(np.ones(network.coupling.atom_count, np.bool_))
    assert isinstance(module, fx.GraphModule)
    run = _Looking(module, places)
    with torch.no_grad():
        for count, arguments in enumerate(inputs, start=1):
            run.run(*arguments)
            progress(Step("looking for dead channels", count))
    return [run.sums[place.reader, place.source, place.dim].seen(place) for place in places]


def random_inputs(network: Network, *, seed: int) -> list[list[Tensor]] | None:
    """Return random inputs for one forward; None where the network asks for more than tensors."""
    generator = torch.Generator().manual_seed(seed)
    example = network.trace.example
    if not all(isinstance(value, Tensor) for value in example):
        return None
    fixed = network.trace.batch is None
    return [
        [
            random_like(
                value,
                generator,
                shape=value.shape if fixed or not value.dim() else (4, *value.shape[1:]),
                shrink=False,
            ).to(value)
            for value in example
        ]
    ]


class _Sums:
    """Range and sum of one place, over the batches so far."""

    def __init__(self) -> None:
        self.low = self.high = self.total = torch.zeros(())
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Add a batch: `[positions, values]`."""
        rows = rows.double()
        low, high = rows.amin(1), rows.amax(1)
        self.low = torch.minimum(self.low, low) if self.count else low
        self.high = torch.maximum(self.high, high) if self.count else high
        self.total = self.total + rows.sum(1)
        self.count += rows.shape[1]

    def seen(self, place: Place) -> Seen:
        """Return what was seen; the mean of equal values is that value, without rounding."""
        low, high = self.low.cpu().numpy(), self.high.cpu().numpy()
        mean = np.clip((self.total / max(self.count, 1)).cpu().numpy(), low, high)
        return Seen(place, low, high, mean)


class _Looking(fx.Interpreter):
    """Runs a network and looks at every value just before it is read.

    A value that is written in place is not what it was when it was made.
    """

    def __init__(self, module: fx.GraphModule, places: Sequence[Place]) -> None:
        super().__init__(module)
        self.nodes = {node.name: node for node in module.graph.nodes}
        self.sums: Mapping[tuple[str, str, int], _Sums] = {
            (place.reader, place.source, place.dim): _Sums() for place in places
        }
        self.by_reader: dict[str, list[Place]] = {}
        for place in places:
            self.by_reader.setdefault(place.reader, []).append(place)

    def run_node(self, n: fx.Node) -> Any:
        """Look at what a reader reads, then run it."""
        for place in self.by_reader.get(n.name, ()):
            value = self.env[self.nodes[place.source]]
            rows = value.movedim(place.dim, 0).flatten(1)
            self.sums[place.reader, place.source, place.dim].add(rows)
        return super().run_node(n)
