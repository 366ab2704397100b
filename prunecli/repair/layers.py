"""Which layers can be repaired, and what stands between them and the rest of the network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunecli.cutting.surgery import slices_of
from prunecli.graph.coupling.roles import PRODUCERS
from prunecli.graph.operators import operator_name, schema_arguments
from prunecli.least_squares.equations import ROWS, WIDEST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from numpy.typing import NDArray

    from prunecli.network.traced import Network

BatchNorm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001 - the base of every batch norm


@dataclass(frozen=True)
class Layer:
    """A layer with weights: `node` in both graphs, `source` what it reads, `norm` behind it.

    `rows` are the outputs of the dense layer that the cut one has. `shortcut` is the node that the
    result is added to, where that is computed before the layer, and `dense_shortcut` what stands
    for it in the dense graph: not the same where a block before was deleted.
    """

    node: str
    operator: str
    source: str
    arguments: Mapping[str, Any]
    weight: str
    bias: str | None
    norm: str | None
    shortcut: str | None
    dense_shortcut: str | None
    rows: NDArray[np.int64]

    @property
    def channel_dim(self) -> int:
        """The dimension of the output that counts its channels."""
        return -1 if self.operator == "linear" else 1

    @property
    def has_intercept(self) -> bool:
        """Whether a constant can be added to every output channel."""
        return self.bias is not None or self.norm is not None


@dataclass(frozen=True)
class Layers:
    """The layers that can be repaired, in the order of execution, and why others cannot.

    `norms` are the nodes of the batch norms behind a cut.
    """

    found: tuple[Layer, ...]
    norms: tuple[str, ...]
    skipped: Mapping[str, int]


def layers_of(network: Network, slim: fx.GraphModule, keep: NDArray[np.bool_]) -> Layers:
    """Return every layer of a cut network that comes after a cut channel or a deleted block."""
    slices = slices_of(network.coupling, keep)
    dense = {node.name: node for node in (network.whole or network).trace.graph.nodes}
    changed = _Changed(slim, frozenset(slices), {block.add for block in network.deleted}, dense)
    position = {node: at for at, node in enumerate(slim.graph.nodes)}
    ranks = {node.name: node.meta["val"].dim() for node in _tensor_nodes(network)}
    uses = Counter(
        str(value.target)
        for node in slim.graph.nodes
        for value in node.all_input_nodes
        if value.op == "get_attr"
    )
    found: list[Layer] = []
    skipped: Counter[str] = Counter()
    for node in slim.graph.nodes:
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in PRODUCERS or not changed.reads(node):
            continue
        reason = _why_not(slim, node, operator, uses)
        if reason:
            skipped[reason] += 1
            continue
        arguments = schema_arguments(node)
        weight = str(arguments["weight"].target)
        atoms = network.coupling.tensors.get(weight, {}).get(0)
        count = network.tensors[weight].shape[0]
        rows = np.arange(count) if atoms is None else network.coupling.kept(atoms, keep)
        # Over `[n, positions, channels]` batch norm counts the positions as channels.
        follows = operator != "linear" or ranks[node.name] == 2
        norm = _norm_behind(slim, node) if follows else None
        shortcut, of_dense = _shortcut(norm or node, position[node], position, dense)
        found.append(
            Layer(
                node=node.name,
                operator=operator,
                source=arguments["input"].name,
                arguments=arguments,
                weight=weight,
                bias=None if arguments["bias"] is None else str(arguments["bias"].target),
                norm=None if norm is None else str(norm.target),
                shortcut=shortcut,
                dense_shortcut=of_dense,
                rows=rows,
            )
        )
    norms = (
        node.name
        for node in slim.graph.nodes
        if node.op == "call_module"
        and isinstance(slim.get_submodule(str(node.target)), BatchNorm)
        and changed.reads(node.all_input_nodes[0])
    )
    return Layers(tuple(found), tuple(norms), dict(skipped))


class _Changed:
    """Tells which nodes of a cut graph compute something else than those of the dense one.

    `cut` are the tensors that lost something, `deleted` the sums that are left out, and `dense` the
    nodes of the dense trace by name.
    """

    def __init__(
        self,
        slim: fx.GraphModule,
        cut: frozenset[str],
        deleted: Collection[str],
        dense: Mapping[str, fx.Node],
    ) -> None:
        self.deleted, self.dense = deleted, dense
        self.touched: dict[fx.Node, bool] = {}
        for node in slim.graph.nodes:
            own = node.op == "get_attr" and node.target in cut
            norm = node.op == "call_module" and f"{node.target}.running_mean" in cut
            before = any(self.touched[value] for value in node.all_input_nodes)
            self.touched[node] = own or norm or before or self._behind_deleted(node)

    def _behind_deleted(self, node: fx.Node) -> bool:
        """Tell whether a node read a sum that is left out, or stands for one."""
        known = self.dense.get(node.name)
        read = () if known is None else (known, *known.all_input_nodes)
        return any(value.name in self.deleted for value in read)

    def reads(self, node: fx.Node) -> bool:
        """Tell whether a layer reads something else than before; of other nodes, what they are.

        A layer that only makes fewer channels makes those that are left as before.
        """
        operator = operator_name(node.target) if node.op == "call_function" else ""
        if operator not in PRODUCERS:
            return self.touched[node]
        return self.touched[schema_arguments(node)["input"]] or self._behind_deleted(node)


def _tensor_nodes(network: Network) -> Iterator[fx.Node]:
    for node in network.trace.graph.nodes:
        if isinstance(node.meta.get("val"), Tensor):
            yield node


def _why_not(slim: fx.GraphModule, node: fx.Node, operator: str, uses: Mapping[str, int]) -> str:
    if operator not in ROWS:
        return f"{operator} is not reconstructed"
    arguments = schema_arguments(node)
    parts = [part for part in (arguments["weight"], arguments["bias"]) if part is not None]
    if any(part.op != "get_attr" for part in parts):
        return "its weight is computed in the forward"
    if any(uses[str(part.target)] > 1 for part in parts):
        return "its weight is used more than once"
    if isinstance(arguments.get("padding"), str):
        return "its padding is named"
    if slim.get_parameter(str(arguments["weight"].target))[0].numel() > WIDEST:
        return f"it reads more than {WIDEST} numbers"
    return ""


def _norm_behind(slim: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the batch norm that alone reads a layer, and reads it alone."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    module = slim.get_submodule(str(users[0].target))
    calls = sum(other.target == users[0].target for other in slim.graph.nodes)
    if not isinstance(module, BatchNorm) or module.running_mean is None or calls > 1:
        return None
    return users[0]


def _shortcut(
    node: fx.Node, at: int, position: Mapping[fx.Node, int], dense: Mapping[str, fx.Node]
) -> tuple[str | None, str | None]:
    """Return what a layer's result is added to, in the cut graph and in the dense one."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_function":
        return None, None
    add = users[0]
    if operator_name(add.target) != "add" or add.kwargs.get("alpha", 1) != 1:
        return None, None
    others = [value for value in add.all_input_nodes if value is not node]
    if len(others) != 1 or others[0].op == "get_attr" or position[others[0]] >= at:
        return None, None
    whole = dense[add.name].all_input_nodes if add.name in dense else others
    before = next(value for value in whole if value.name != node.name)
    return str(others[0].name), str(before.name)


@dataclass(frozen=True)
class Affine:
    """What a batch norm does in evaluation mode: `scale * x + shift`, both `[channels]`."""

    scale: Tensor
    shift: Tensor

    def on(self, values: Tensor) -> Tensor:
        """Apply it over dimension 1."""
        shape = (1, -1, *(1,) * (values.dim() - 2))
        return self.scale.view(shape) * values + self.shift.view(shape)


def affine_of(module: BatchNorm) -> Affine:
    """Return a batch norm as the affine map that it is in evaluation mode."""
    assert module.running_mean is not None
    assert module.running_var is not None
    mean = module.running_mean.double()
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -mean * scale
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    return Affine(scale, shift)


def take(affine: Affine, rows: NDArray[np.int64]) -> Affine:
    """Return the affine map of some channels."""
    index = torch.as_tensor(rows, device=affine.scale.device)
    return Affine(affine.scale[index], affine.shift[index])
