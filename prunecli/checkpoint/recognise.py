"""Decide which architecture a state dict belongs to, or say why that cannot be decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prunecli.architectures.fingerprint import (
    Shapes,
    describe_difference,
    has_free_dims,
    read_arguments,
    shapes_of,
)
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import (
    Match,
    architecture_of,
    build_dense,
    expected_shapes,
    fingerprint_of,
    match_all,
    nearest,
    without_auxiliary,
)
from prunecli.checkpoint.headers import counter_like
from prunecli.checkpoint.state_dict import Unwrapped, name_variants
from prunecli.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

_NAME_IT = (
    "name it: --arch resnet50, --arch timm/NAME, or --arch mypackage.nets:make_net with "
    "--arch-arg name=value"
)


@dataclass(frozen=True)
class Recognised:
    """The architecture, the tensors under its own names, its input, and what to tell the user."""

    architecture: ArchitectureRef
    tensors: Mapping[str, Tensor]
    input: InputSpec
    notes: tuple[str, ...] = ()
    published: str | None = None


def recognise(
    unwrapped: Unwrapped,
    *,
    where: str,
    sha256: str,
    architecture: str | None,
    arguments: Mapping[str, Any] | None,
) -> Recognised:
    """Return the one architecture that fits; raise `InputError` when none or several do.

    `architecture` and `arguments` are what the user said. `sha256` is that of the file: it tells
    torchvision's published weights.
    """
    given = dict(arguments or {})
    if architecture is not None and ":" in architecture:
        return _of_factory(unwrapped, ArchitectureRef(architecture, given), where=where)
    if architecture is not None:
        architecture_of(architecture)  # an unknown name is an error of its own
    if architecture is not None and given:
        return _with_arguments(unwrapped, architecture, given, where=where, sha256=sha256)
    for tensors in name_variants(unwrapped.tensors):
        fitting = match_all(shapes_of(tensors), name=architecture)
        if fitting:
            match = _only(fitting, unwrapped.declared, where=where, sha256=sha256)
            if given:
                return _with_arguments(unwrapped, match.name, given, where=where, sha256=sha256)
            return _finish(match, tensors, {}, sha256=sha256)
    raise _fits_none(unwrapped, architecture, where=where)


def _only(matches: list[Match], declared: str | None, *, where: str, sha256: str) -> Match:
    """Return the one match, or the one that the file itself names; never a guess."""
    by_sha = [m for m in matches if _published_key(m.name, sha256)]
    by_name = [m for m in matches if m.name == declared]
    for candidates in (matches, by_sha, by_name):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(match.name for match in matches)
    raise InputError(
        f"the names and shapes of these weights fit {len(matches)} architectures: {names}",
        code="AMBIGUOUS_ARCHITECTURE",
        where=where,
        hint=f"say which one it is: --arch {matches[0].name}",
    )


def _finish(
    match: Match, tensors: Mapping[str, Tensor], given: Mapping[str, Any], *, sha256: str
) -> Recognised:
    entry = architecture_of(match.name)
    key = _published_key(match.name, sha256)
    published = entry.published[key] if key else None
    arguments = {**match.arguments, **(published.arguments if published else {}), **given}
    notes = [
        f"{match.name}: the weights do not show {argument}; {assumption}"
        for argument, assumption in entry.hidden.items()
        if argument not in arguments
    ]
    auxiliary = () if match.keeps_auxiliary else entry.auxiliary
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(auxiliary)}
    if len(kept) < len(tensors):
        heads = ", ".join(prefix.rstrip(".") for prefix in entry.auxiliary)
        notes.append(
            f"{len(tensors) - len(kept)} tensors of auxiliary heads ({heads}) were dropped: they "
            "are used in training only"
        )
    spec = published.input if published else entry.input
    size = arguments.get("image_size")
    return Recognised(
        ArchitectureRef(match.name, arguments),
        _with_counters(kept),
        replace(spec, height=size, width=size) if size else spec,
        tuple(notes),
        published.name if published else None,
    )


def _with_arguments(
    unwrapped: Unwrapped, name: str, given: Mapping[str, Any], *, where: str, sha256: str
) -> Recognised:
    """Build the named architecture with the user's arguments and those read off the shapes."""
    entry = architecture_of(name)
    # Where the arguments show takes several networks to find out, and all may be given.
    free = fingerprint_of(name).free if entry.variants.keys() - given.keys() else {}
    auxiliary = entry.auxiliary
    differences = []
    for tensors in name_variants(unwrapped.tensors):
        shapes = shapes_of(tensors)
        kept = without_auxiliary(shapes, auxiliary)
        read = (read_arguments(kept, free) or {}) if has_free_dims(kept, free) else {}
        arguments = {**read, **given}
        expected = shapes_of(build_dense(ArchitectureRef(name, arguments)).state_dict())
        # With the user's arguments the auxiliary heads may be part of the network.
        if expected in (shapes, kept):
            match = Match(name, read, keeps_auxiliary=expected == shapes)
            return _finish(match, tensors, given, sha256=sha256)
        differences.append((_distance(kept, expected), kept, expected))
    raise _mismatch(name, differences, where=where)


def _of_factory(unwrapped: Unwrapped, reference: ArchitectureRef, *, where: str) -> Recognised:
    """Compare with what the user's factory makes; its class count cannot be set for it."""
    module = build_dense(reference)
    state = module.state_dict()
    expected = shapes_of(state)
    differences = []
    for tensors in name_variants(unwrapped.tensors):
        shapes = shapes_of(tensors)
        if shapes == expected:
            spec, notes = _factory_input(module)
            fitting = {k: t for k, t in _with_counters(tensors).items() if k in state}
            return Recognised(reference, fitting, spec, notes)
        differences.append((_distance(shapes, expected), shapes, expected))
    raise _mismatch(reference.name, differences, where=where)


def _factory_input(module: nn.Module) -> tuple[InputSpec, tuple[str, ...]]:
    """Return the input that a module of timm's kind declares, or what its first layer shows.

    The size is 0 x 0 where nothing tells it; the caller must then give one.
    """
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(config, Mapping) and {"input_size", "mean", "std"} <= config.keys():
        channels, height, width = config["input_size"]
        mean, std = tuple(config["mean"]), tuple(config["std"])
        return InputSpec(channels, height, width, mean, std), ()
    channels = _first_channels(module)
    spec = InputSpec(channels, 0, 0, (0.0,) * channels, (1.0,) * channels)
    note = "the normalisation is not known; pixels are scaled to 0..1 unless --mean and --std say"
    return spec, (note,)


def _first_channels(module: nn.Module) -> int:
    from torch import nn

    channels = (m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d))
    return next(channels, 1)


def _with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the batch counters of batch norm that files from before torch 0.4.1 lack."""
    complete = {}
    for name, tensor in tensors.items():
        complete[name] = tensor
        stem, _, last = name.rpartition(".")
        counter = f"{stem}.num_batches_tracked"
        if last == "running_var" and counter not in tensors:
            complete[counter] = counter_like(tensor)
    return complete


def _published_key(name: str, sha256: str) -> str | None:
    keys = architecture_of(name).published
    return next((key for key in keys if sha256.startswith(key)), None)


def _fits_none(unwrapped: Unwrapped, architecture: str | None, *, where: str) -> InputError:
    """Return the error for weights that fit no architecture, with how far the nearest are."""
    variants = [shapes_of(tensors) for tensors in name_variants(unwrapped.tensors)]
    if architecture is not None:
        expected = [expected_shapes(architecture, shapes) for shapes in variants]
        found = zip(variants, expected, strict=True)
        return _mismatch(architecture, [(_distance(f, e), f, e) for f, e in found], where=where)
    ranked = [(nearest(shapes), shapes) for shapes in variants]
    near, shapes = max(ranked, key=lambda pair: pair[0][0][0] if pair[0] else 0.0)
    told = [
        describe_difference(shapes, expected_shapes(name, shapes), name=name) for _, name in near
    ]
    nearest_text = "\n  ".join(["nearest:", *told]) if told else "no known architecture is similar"
    return InputError(
        f"these {len(shapes)} tensors fit no architecture that is known by name; {nearest_text}",
        code="UNKNOWN_ARCHITECTURE",
        where=where,
        hint=_NAME_IT,
    )


def _mismatch(
    name: str, differences: Iterable[tuple[int, Shapes, Shapes]], *, where: str
) -> InputError:
    _, found, expected = min(differences, key=lambda item: item[0])
    return InputError(
        f"the weights do not fit {describe_difference(found, expected, name=name)}",
        code="ARCHITECTURE_MISMATCH",
        where=where,
        hint="give the right --arch, and what its constructor needs with --arch-arg name=value "
        "(a class count: --arch-arg num_classes=10)",
    )


def _distance(found: Shapes, expected: Shapes) -> int:
    """Count the tensors that only one side has, or that have another shape."""
    return len(found.items() ^ expected.items())
