"""Walk a graph node by node over all calibration images, each node computed once per image."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, fx

from prunecli.cost.sizes import tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

Values = dict[str, Any]
"""Values of nodes by name."""

MEMORY_LIMIT = 2**30
"""Bytes of activations that are kept in memory; those of further images go to temporary files."""


class Store:
    """Activations of one place in a network, in memory up to a limit and in files beyond it."""

    def __init__(self, limit: int = MEMORY_LIMIT) -> None:
        self.left = limit
        self._memory: dict[tuple[int, int], Values] = {}
        self._stack = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def put(self, key: tuple[int, int], values: Values) -> None:
        """Keep values under a key that is free."""
        size = _bytes(values)
        if size <= self.left:
            self.left -= size
            self._memory[key] = values
            return
        if self._folder is None:
            self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="prunecli-")))
        torch.save(values, self._file(key))

    def take(self, key: tuple[int, int]) -> Values:
        """Hand out what is kept under a key, and free it."""
        if key in self._memory:
            values = self._memory.pop(key)
            self.left += _bytes(values)
            return values
        loaded: Values = torch.load(self._file(key))
        self._file(key).unlink()
        return loaded

    def _file(self, key: tuple[int, int]) -> Path:
        assert self._folder is not None
        return self._folder / f"{key[0]}-{key[1]}.pt"


def _bytes(values: Mapping[str, Any]) -> int:
    return tensor_bytes(value for value in values.values() if isinstance(value, Tensor))


class Lockstep(fx.Interpreter):
    """One network on its way through all batches: each call of `upto` takes it further.

    What a layer computes is never computed again, so a layer may be changed as long as the walk has
    not passed it, and later layers see what the changed ones make.
    """

    def __init__(
        self, network: fx.GraphModule, inputs: Iterable[Tensor], store: Store, *, number: int
    ) -> None:
        super().__init__(network)
        self.nodes = list(network.graph.nodes)
        self.position = {node.name: at for at, node in enumerate(self.nodes)}
        self.done_after: dict[int, list[fx.Node]] = {}
        for at, node in enumerate(self.nodes):
            last = max((self.position[user.name] for user in node.users), default=at)
            if node.op != "get_attr":
                self.done_after.setdefault(last, []).append(node)
        self.inputs = inputs
        self.store = store
        self.number = number
        self.at = 0
        self.batches = 0

    def upto(self, name: str, *, through: bool = False) -> Iterator[Values]:
        """Yield, per batch, the values that are still read, right before (or after) a node.

        Names must come in the order of execution, and every batch must be taken.
        """
        stop = self.position[name] + through
        start, self.at = self.at, max(self.at, stop)
        batches = self._first() if start == 0 else self._kept()
        for number, values in enumerate(batches):
            found = self._run(values, start, self.at)
            yield found
            self.store.put((self.number, number), found)
            self.batches = max(self.batches, number + 1)

    def _run(self, values: Values, start: int, stop: int) -> Values:
        """Run the nodes from one position to another, and return the values that are still read."""
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
        return {node.name: value for node, value in self.env.items() if node.op != "get_attr"}

    def _first(self) -> Iterator[Values]:
        (image,) = (node.name for node in self.nodes if node.op == "placeholder")
        for inputs in self.inputs:
            yield {image: inputs}

    def _kept(self) -> Iterator[Values]:
        for number in range(self.batches):
            yield self.store.take((self.number, number))
