"""Compare a part of a state dict with one architecture, whatever stands beside it.

The part fits where every tensor of the architecture is there, but for its head and its stem; what
these are instead is read off the tensors. What the file has besides is left out, unless it stands
inside the architecture: then the part is another network.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prunecli.architectures.changes import LAYER
from prunecli.architectures.fingerprint import Shapes, has_free_dims, read_arguments, shapes_of
from prunecli.architectures.lookup import fingerprint_of
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import architecture_of, build_dense
from prunecli.checkpoint.heads import Head, read_head
from prunecli.checkpoint.selection import begins, beside
from prunecli.checkpoint.side import is_side, looks_like_head
from prunecli.checkpoint.stems import Stem, image_size, read_stem
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class Fit:
    """How a part of a state dict is a known architecture.

    `renamed` maps names of the file to those in the network, `left_out` are the others of the file,
    `dropped` those of auxiliary heads. `matched` counts the tensors that are the architecture's
    own. `assumed` says in words what is not certain.
    """

    prefix: str
    reference: ArchitectureRef
    input: InputSpec
    renamed: Mapping[str, str]
    left_out: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    matched: int = 0
    assumed: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the architecture."""
        return self.reference.name


@dataclass(frozen=True)
class Part:
    """The tensors of a file below `prefix`, which ends in a dot or is empty.

    `activation` is what somebody says of the head (`Selection`).
    """

    shapes: Shapes
    prefix: str
    activation: str | None = None

    @property
    def inside(self) -> dict[str, tuple[int, ...]]:
        """The shapes below the prefix, by their names without it."""
        cut = len(self.prefix)
        return {n[cut:]: shape for n, shape in self.shapes.items() if n.startswith(self.prefix)}

    @property
    def outside(self) -> list[str]:
        """The other names of the file."""
        return [name for name in self.shapes if not name.startswith(self.prefix)]


@dataclass
class _Draft:
    """What is found out about a fit, step by step."""

    renamed: dict[str, str]
    changes: dict[str, Any] = field(default_factory=dict)
    assumed: list[str] = field(default_factory=list)


def fit(part: Part, name: str, given: Mapping[str, Any]) -> Fit | None:
    """Return how a part is the named architecture with the `given` arguments; None if it is not.

    Raises `InputError` where the architecture cannot be built, `AMBIGUOUS_HEAD` where several
    groups of tensors may be its head.
    """
    entry, found = architecture_of(name), part.inside
    free = fingerprint_of(name).free if entry.variants else {}
    arguments = {**_read_as_far(found, free), **given}
    module = build_dense(ArchitectureRef(name, arguments))
    expected = shapes_of(module.state_dict())
    if (size := image_size(module, expected, found)) and "img_size" not in given:
        return fit(part, name, {**given, "img_size": size})
    extra = [n for n in found if n not in expected]
    dropped = [n for n in extra if n.startswith(entry.auxiliary)] if entry.auxiliary else []
    own = {n.partition(".")[0] for n in expected}
    inner = [n for n in extra if n.partition(".")[0] in own and n not in dropped]
    matching = [n for n, shape in expected.items() if found.get(n) == shape]
    draft = _Draft({part.prefix + n: n for n in matching})
    wrong = [n for n in expected if found.get(n) != expected[n]]
    stem = read_stem(module, expected, found) if wrong or inner else None
    if stem is not None:
        draft.changes |= stem.changes
        draft.assumed += stem.assumed
        draft.renamed |= {part.prefix + n: n for n in stem.names if n in found}
        wrong = [n for n in wrong if n not in stem.names]
        inner = [n for n in inner if n not in stem.names]
    if len(matching) < len(expected) / 2:
        return None
    if wrong or inner:
        classifier = {n.rpartition(".")[0] for n, _ in free.get("num_classes", ())}
        arguments = {k: v for k, v in arguments.items() if k != "num_classes" or k in given}
        reference = ArchitectureRef(name, arguments)
        if len(classifier) != 1 or not _with_head(
            draft, part, reference, classifier.pop(), wrong=[*wrong, *inner], besides=extra
        ):
            return None
    reference = ArchitectureRef(name, arguments, draft.changes)
    spec = input_of(entry.input, arguments, stem)
    if "avgpool" in draft.changes:
        spec = dataclasses.replace(spec, height=32, width=32)
    if draft.changes and not _runs(reference, spec):
        return None
    left = [
        n for n in part.shapes if n not in draft.renamed and n[len(part.prefix) :] not in dropped
    ]
    return Fit(
        part.prefix,
        reference,
        spec,
        draft.renamed,
        tuple(left),
        tuple(part.prefix + n for n in dropped),
        len(matching),
        tuple(draft.assumed),
    )


def fit_module(part: Part, reference: ArchitectureRef, state: Mapping[str, Tensor]) -> Fit | None:
    """Return how a part is what the user's own code made; its head and stem are as they are."""
    expected, found = shapes_of(state), part.inside
    own = {n.partition(".")[0] for n in expected}
    inner = [n for n in found if n not in expected and n.partition(".")[0] in own]
    if inner or any(found.get(n) != shape for n, shape in expected.items()):
        return None
    renamed = {part.prefix + n: n for n in expected}
    left = tuple(n for n in part.shapes if n not in renamed)
    nothing = InputSpec(1, 0, 0, (0.0,), (1.0,))
    return Fit(part.prefix, reference, nothing, renamed, left, (), len(expected))


def input_of(spec: InputSpec, arguments: Mapping[str, Any], stem: Stem | None) -> InputSpec:
    """Return the input of an architecture with these arguments and this stem."""
    size = arguments.get("image_size") or arguments.get("img_size")
    if isinstance(size, int):
        spec = dataclasses.replace(spec, height=size, width=size)
    return spec if stem is None else stem.input_of(spec)


def _read_as_far(shapes: Shapes, free: Mapping[str, Any]) -> dict[str, int]:
    """Return the arguments that the shapes show, each by itself."""
    found: dict[str, int] = {}
    for argument, pairs in free.items():
        if has_free_dims(shapes, {argument: pairs}):
            found |= read_arguments(shapes, {argument: pairs}) or {}
    return found


def _with_head(
    draft: _Draft,
    part: Part,
    reference: ArchitectureRef,
    classifier: str,
    *,
    wrong: Collection[str],
    besides: Collection[str],
) -> bool:
    """Find the head that stands in place of the classifier; return False where there is none."""
    from torch import nn

    parts = classifier.split(".")
    places = [".".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
    place = next((one for one in places if all(begins(n, one) for n in wrong)), None)
    if place is None:
        return False
    module = build_dense(reference)
    before = module.get_submodule(place)
    inputs = _features(before)
    found = {n[len(place) + 1 :]: s for n, s in part.inside.items() if n.startswith(f"{place}.")}
    for name in [n for n in draft.renamed if begins(n[len(part.prefix) :], place)]:
        del draft.renamed[name]
    own = list(before.children()) if isinstance(before, nn.Sequential) else []
    pooled = _pooled(module, inputs)
    widths = [inputs, *pooled]
    if found:
        root, head = f"{part.prefix}{place}.", _first_head(found, widths, own, part.activation)
        if head is None:
            return False
    else:
        root, head = _head_beside(part, besides, widths, place=place, of=reference.name)
    if head is None:
        draft.changes[place] = {LAYER: "identity"}
        draft.assumed.append(
            f"there is no head in place of {place}: the model gives {inputs} features, no classes"
        )
        return True
    draft.assumed += [f"{root}*: {text}" for text in head.assumed]
    draft.renamed |= {root + n: f"{place}.{after}" for n, after in head.renamed.items()}
    draft.changes[place] = head.layers
    if _width_of(head) in pooled:
        draft.changes["avgpool"] = {LAYER: "average"}
        draft.assumed.append(
            f"its head takes {_width_of(head)} features: the input size is taken as 32x32, "
            "--input-size says otherwise"
        )
    return True


def _features(module: nn.Module) -> int:
    """Return the width of what goes into a head."""
    weight = next(iter(module.state_dict().values()))
    return int(weight.shape[1] if weight.dim() > 1 else weight.shape[0])


def _pooled(module: nn.Module, inputs: int) -> list[int]:
    """Return the features of a network whose last map is averaged, where it is flattened now."""
    from torch import nn

    pool = getattr(module, "avgpool", None)
    if not isinstance(pool, nn.AdaptiveAvgPool2d) or not isinstance(pool.output_size, int | tuple):
        return []
    size = pool.output_size
    area = size**2 if isinstance(size, int) else (size[0] or 1) * (size[-1] or 1)
    return [inputs // area] if area > 1 and inputs % area == 0 else []


def _first_head(
    shapes: Shapes, widths: list[int], own: list[nn.Module], activation: str | None
) -> Head | None:
    heads = (read_head(shapes, width, own=own, activation=activation) for width in widths)
    return next((head for head in heads if head is not None), None)


def _width_of(head: Head) -> int:
    layers = head.layers if isinstance(head.layers, list) else [head.layers]
    told = (layer.get("inputs", layer.get("features")) for layer in layers)
    return next((width for width in told if width), 0)


def _head_beside(
    part: Part, besides: Collection[str], widths: list[int], *, place: str, of: str
) -> tuple[str, Head | None]:
    """Return the head among the tensors beside an architecture, and what its names begin with.

    Raises `InputError` (`AMBIGUOUS_HEAD`) where several might be it.
    """
    heads: dict[str, Head] = {}
    names = [*(part.prefix + name for name in besides), *part.outside]
    for root, inner in beside(names, part.prefix).items():
        shapes = {n[len(root) + 1 :]: part.shapes[n] for n in inner}
        is_none = is_side(root) or inner == [root]
        head = None if is_none else _first_head(shapes, widths, [], part.activation)
        if head is not None:
            heads[root] = head
    called = {root: head for root, head in heads.items() if looks_like_head(root, place)}
    chosen = called if len(called) == 1 else heads
    if len(chosen) > 1:
        first, *others = chosen
        ignored = " ".join(f"--ignore '{root}.*'" for root in others)
        raise InputError(
            f"any of {', '.join(chosen)} may be the head of {of}",
            code="AMBIGUOUS_HEAD",
            hint=f"say which one: --map {first}={part.prefix}{place}, or leave the others out: "
            f"{ignored}",
        )
    for root, head in chosen.items():
        return f"{root}.", dataclasses.replace(head, assumed=("taken as its head", *head.assumed))
    return "", None


def _runs(reference: ArchitectureRef, spec: InputSpec) -> bool:
    """Tell whether a changed network takes its input and gives one vector for each image."""
    import torch

    try:
        with torch.no_grad():
            output = build_dense(reference)(torch.empty(2, *spec.shape, device="meta"))
    except InputError:
        raise
    except Exception:  # noqa: BLE001  # whatever its layers say to shapes that do not fit
        return False
    return isinstance(output, torch.Tensor) and output.dim() >= 2
