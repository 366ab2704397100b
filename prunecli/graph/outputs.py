"""What a forward returns, as plain data: dicts, lists, named tuples, records with attributes.

A rebuilt network gives its outputs back in the same form without the class that the forward made
them with: a dataclass or a `ModelOutput` comes back as `Outputs`.
"""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from torch import nn

_PLAIN_MAPPINGS = (dict, OrderedDict, defaultdict)


class Outputs(dict[str, Any]):
    """Named outputs: by key, as attributes, and by position, as `ModelOutput` of transformers has.

    `absent` names attributes that are None and no keys.

    >>> found = Outputs({"logits": 1, "features": 2}, absent=("loss",))
    >>> found.logits, found["features"], found[1], found.loss, found.to_tuple()
    (1, 2, 2, None, (1, 2))
    """

    def __init__(self, items: Mapping[str, Any], *, absent: Sequence[str] = ()) -> None:
        super().__init__(items)
        self.__dict__["absent"] = tuple(absent)

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if isinstance(key, int | slice) else super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return super().__getitem__(name)
        if name in self.__dict__.get("absent", ()):
            return None
        raise AttributeError(name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _outputs, (dict(self), self.absent)

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the outputs in order."""
        return tuple(self.values())


def _outputs(items: Mapping[str, Any], absent: Sequence[str]) -> Outputs:
    return Outputs(items, absent=absent)


pytree.register_pytree_node(
    Outputs,
    lambda found: (list(found.values()), [list(found), list(found.absent)]),
    lambda values, context: Outputs(dict(zip(context[0], values, strict=True)), absent=context[1]),
    serialized_type_name="prunecli.Outputs",
)


# --- what a forward returns, without the user's classes -------------------------------------------


@contextmanager
def without_own_classes(model: nn.Module) -> Iterator[None]:
    """Let the forward of a model return `Outputs` in place of records of classes of its own.

    The caller restores the attributes of the model.
    """
    forward = model.forward

    @wraps(forward)
    def returning(*args: Any, **kwargs: Any) -> Any:
        return _known(forward(*args, **kwargs))

    model.forward = returning
    yield


def _known(value: Any) -> Any:
    """Return an output in which every record is `Outputs`."""
    if isinstance(value, Mapping):
        items = {key: _known(item) for key, item in value.items()}
        if type(value) in _PLAIN_MAPPINGS or not all(isinstance(key, str) for key in items):
            return items
        return Outputs(items, absent=[name for name in _fields(value) if name not in items])
    if _fields(value):
        return Outputs({name: _known(getattr(value, name)) for name in _fields(value)})
    if pytree.is_namedtuple_instance(value):
        return type(value)(*map(_known, value))
    if type(value) in (list, tuple):
        return type(value)(map(_known, value))
    return value


def _fields(value: Any) -> tuple[str, ...]:
    is_record = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return tuple(field.name for field in dataclasses.fields(value)) if is_record else ()


# --- by name -------------------------------------------------------------------------------------

ONLY = "logits"
"""The name of the only tensor that a forward returns, where it gives it none."""


def named_leaves(value: Any) -> dict[str, Any]:
    """Return what a forward returned as a flat dict: by key, field and position; None is left out.

    >>> named_leaves({"logits": 1, "features": (2, [3]), "loss": None})
    {'logits': 1, 'features.0': 2, 'features.1.0': 3}
    >>> named_leaves((1, [2])), named_leaves(1)
    ({'out.0': 1, 'out.1.0': 2}, {'logits': 1})
    """
    found: dict[str, Any] = {}
    for path, leaf in _leaves(_known(value), ()):
        parts = ("out", *path) if path and isinstance(path[0], int) else path
        name = ".".join(map(str, parts)) or ONLY
        while name in found:  # {"a.0": ..., "a": [...]}
            name += "_"
        found[name] = leaf
    return found


def _leaves(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if pytree.is_namedtuple_instance(value):
        value = value._asdict()
    if isinstance(value, Mapping):
        items: Any = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        if value is not None:
            yield path, value
        return
    for key, item in items:
        yield from _leaves(item, (*path, key))


@contextmanager
def returning_tensors(model: nn.Module) -> Iterator[None]:
    """Let the forward of a model return a flat tuple of its tensors, in the order of their names.

    The caller restores the attributes of the model.
    """
    forward = model.forward

    @wraps(forward)
    def returning(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        leaves = named_leaves(forward(*args, **kwargs)).values()
        return tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    model.forward = returning
    yield


def with_flat_outputs(network: fx.GraphModule, names: Collection[str]) -> fx.GraphModule:
    """Return a graph over the same tensors that returns a flat tuple of its outputs `names`.

    What runs a graph node by node does not call its forward.
    """
    copied = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in network.graph.nodes:
        if node.op != "output":
            nodes[node] = copied.node_copy(node, nodes.__getitem__)
            continue
        form = network.graph._codegen  # noqa: SLF001
        whole = form.process_outputs(node.args[0]) if isinstance(form, Arranging) else node.args[0]
        leaves = named_leaves(whole)
        copied.output(tuple(nodes[leaves[name]] for name in names))
    return fx.GraphModule(network, copied, class_name=type(network).__name__)


# --- as JSON -------------------------------------------------------------------------------------


def structure_of(value: Any) -> Any:
    """Return outputs as JSON: positions in the flat output, in lists and objects.

    Tuples are lists and dicts objects; anything else is an object with a `kind`.
    """
    if isinstance(value, Outputs):
        return _kind("attributes", value, absent=list(value.absent))
    if isinstance(value, Mapping):
        return _structure_of_dict(value)
    if pytree.is_namedtuple_instance(value):
        return _kind("named", value._asdict(), name=type(value).__name__)
    if isinstance(value, list | tuple):
        items = [structure_of(item) for item in value]
        return items if isinstance(value, tuple) else {"kind": "list", "items": items}
    return value


def _structure_of_dict(value: Mapping[Any, Any]) -> dict[str, Any]:
    if all(isinstance(key, str) for key in value):
        return {key: structure_of(item) for key, item in value.items()}
    # JSON has no keys of other types, but it has such values.
    known = all(isinstance(key, str | int | float) for key in value)
    return _kind("dict", value if known else {str(key): item for key, item in value.items()})


def _kind(kind: str, value: Mapping[Any, Any], **more: Any) -> dict[str, Any]:
    items = [structure_of(item) for item in value.values()]
    return {"kind": kind, **more, "keys": list(value), "items": items}


def has_kinds(structure: Any) -> bool:
    """Tell whether a structure holds more than tuples and dicts."""
    if isinstance(structure, dict):
        return _is_kind(structure) or any(map(has_kinds, structure.values()))
    return isinstance(structure, list) and any(map(has_kinds, structure))


def _is_kind(structure: Mapping[str, Any]) -> bool:
    # The values of a plain dict are positions, lists and dicts.
    return isinstance(structure.get("kind"), str)


def arranged(structure: Any, flat: Any) -> Any:
    """Return flat outputs in the form that a structure says; raises what a wrong one calls for.

    >>> arranged({"logits": 1, "rest": [0, 1]}, ["a", "b"])
    {'logits': 'b', 'rest': ('a', 'b')}
    """
    if isinstance(structure, int):
        return flat[structure]
    if isinstance(structure, list):
        return tuple(arranged(item, flat) for item in structure)
    if not isinstance(structure, dict):
        raise TypeError(f"{structure!r} is no output")
    if not _is_kind(structure):
        return {key: arranged(item, flat) for key, item in structure.items()}
    items = [arranged(item, flat) for item in structure["items"]]
    if structure["kind"] == "list":
        return items
    return _MAKE[structure["kind"]](structure, dict(zip(structure["keys"], items, strict=True)))


def _named(structure: Mapping[str, Any], items: Mapping[str, Any]) -> Any:
    # A name that is no identifier is refused there.
    form: Any = namedtuple(structure["name"], list(items))  # type: ignore[misc]  # noqa: PYI024
    return form(**items)


_MAKE: dict[str, Callable[[Mapping[str, Any], dict[str, Any]], Any]] = {
    "dict": lambda _, items: items,
    "attributes": lambda structure, items: Outputs(items, absent=structure["absent"]),
    "named": _named,
}
"""By kind: how an output is made of what has names."""


class Arranging(CodeGen):
    """Lets a graph with a flat list of outputs return them in the form that a structure says."""

    def __init__(self, structure: Any) -> None:
        super().__init__()
        self.structure = structure

    def generate_output(self, *args: Any, **kwargs: Any) -> str:
        """Return the statement that ends the forward."""
        flat = super().generate_output(*args, **kwargs).removeprefix("return ")
        return f"return _arranged({json.dumps(self.structure)!r}, {flat})"

    def process_outputs(self, outputs: Any) -> Any:
        """Return what an interpreter of the graph gives back."""
        return arranged(self.structure, outputs)

    def additional_globals(self) -> list[tuple[str, Any]]:
        """Return the names that the forward uses."""
        return [("_arranged", arranged_as_told)]


def arranged_as_told(structure: str, flat: Any) -> Any:
    """Return flat outputs in the form that a structure, as JSON text, says."""
    return arranged(json.loads(structure), flat)
