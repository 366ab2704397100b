"""Walk graphs node by node over all calibration images, each node computed once per image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from prunecli.cost.sizes import tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

Values = dict[str, Any]
"""Values of nodes by name."""

MEMORY_LIMIT = 2**30
"""Bytes of activations that are kept; where an image takes more of them, fewer images are kept."""

PIECE = 2**21
"""Numbers of the images that go through a network at once."""


class Walk(fx.Interpreter):
    """One network, run from one place to another."""

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.nodes = list(network.graph.nodes)
        (self.image,) = (node.name for node in self.nodes if node.op == "placeholder")
        self.position = {node.name: at for at, node in enumerate(self.nodes)}
        self.done_after: dict[int, list[fx.Node]] = {}
        for at, node in enumerate(self.nodes):
            last = max((self.position[user.name] for user in node.users), default=at)
            if node.op != "get_attr":
                self.done_after.setdefault(last, []).append(node)
        self.at = 0

    def between(self, values: Values, start: int, stop: int) -> Values:
        """Run the nodes from one position to another, and return the values that are still read."""
        for _ in self._steps(values, start, stop):
            pass
        return self._alive()

    def most_bytes_from(self, inputs: Tensor) -> list[int]:
        """Return what the values take that are still read at every position, or at a later one."""
        steps = self._steps({self.image: inputs}, 0, len(self.nodes))
        taken = [tensor_bytes([inputs]), *(_bytes(self._alive()) for _ in steps)]
        for at in reversed(range(len(taken) - 1)):
            taken[at] = max(taken[at], taken[at + 1])
        self.env = {}
        return taken

    def _steps(self, values: Values, start: int, stop: int) -> Iterator[None]:
        self.env = {self.nodes[self.position[name]]: value for name, value in values.items()}
        values.clear()
        for node in self.nodes:
            if node.op == "get_attr":
                self.env[node] = self.run_node(node)
        for at, node in enumerate(self.nodes[start:stop], start):
            if node.op not in {"placeholder", "get_attr", "output"}:
                self.env[node] = self.run_node(node)
            for done in self.done_after.get(at, ()):
                self.env.pop(done, None)
            yield

    def _alive(self) -> Values:
        return {node.name: value for node, value in self.env.items() if node.op != "get_attr"}


class Lockstep:
    """Networks on their way through the same images: each call of `upto` takes them further.

    What a layer computes is never computed again, so a layer may be changed as long as the walk has
    not passed it, and later layers see what the changed ones make. Maps are large early in a
    network and small late: images join the walk, from its start, once all that have joined fit into
    `limit` from there to the end. So early layers see fewer images than late ones, where an image
    has few positions, and memory does not grow with the number of images.
    """

    def __init__(
        self,
        networks: Sequence[fx.GraphModule],
        inputs: Iterable[Tensor],
        *,
        images: int,
        limit: int | None = None,
    ) -> None:
        self.walks = [Walk(network) for network in networks]
        self.images = self.fewest = images
        self.limit = MEMORY_LIMIT if limit is None else limit
        self.waiting = (
            piece
            for batch in inputs
            for piece in torch.split(batch, max(1, PIECE // batch[0].numel()))
        )
        self.kept: list[list[Values]] = []
        self.joined = 0
        self.next = next(self.waiting, None)
        self.size = 0 if self.next is None else len(self.next)
        self.needed = (
            [] if self.next is None else [w.most_bytes_from(self.next) for w in self.walks]
        )

    def images_from(self, *names: str) -> int:
        """Return about how many images take part from some nodes on, one of every network."""
        return min(self.images, self._batches(names) * self.size)

    def upto(self, *names: str, through: Sequence[bool] = ()) -> Iterator[list[Values]]:
        """Yield, per batch, the values of every network that are still read before its node.

        Where `through` holds, the node itself has been computed. Names must come in the order of
        execution, and every batch must be taken.
        """
        after = through or [False] * len(names)
        starts = [walk.at for walk in self.walks]
        for (walk, name), computed in zip(self._with(names), after, strict=True):
            walk.at = max(walk.at, walk.position[name] + computed)
        for number, values in enumerate(self.kept):
            self.kept[number] = found = self._run(values, starts)
            yield found
        most = self._batches(names)
        while self.next is not None and len(self.kept) < most:
            inputs, self.next = self.next, next(self.waiting, None)
            self.joined += len(inputs)
            found = self._run([{walk.image: inputs} for walk in self.walks], [0] * len(starts))
            self.kept.append(found)
            yield found
        self.fewest = min(self.fewest, self.joined)

    def _with(self, names: Sequence[str]) -> list[tuple[Walk, str]]:
        return list(zip(self.walks, names, strict=True))

    def _run(self, values: Sequence[Values], starts: Sequence[int]) -> list[Values]:
        return [
            walk.between(own, start, walk.at)
            for walk, own, start in zip(self.walks, values, starts, strict=True)
        ]

    def _batches(self, names: Sequence[str]) -> int:
        """Return how many batches fit into memory from some nodes to the end, at least 1."""
        needed = sum(
            taken[walk.position[name]]
            for (walk, name), taken in zip(self._with(names), self.needed, strict=True)
        )
        return max(1, self.limit // max(needed, 1))


def _bytes(values: Mapping[str, Any]) -> int:
    return tensor_bytes(value for value in values.values() if isinstance(value, Tensor))
