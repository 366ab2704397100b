"""Decide which architecture a state dict belongs to, or say why that cannot be decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunecli.architectures.changes import LAYER
from prunecli.architectures.fingerprint import Shapes, shapes_of
from prunecli.architectures.lookup import (
    expected_shapes,
    fingerprint_of,
    match_all,
    match_timm,
)
from prunecli.architectures.reference import ArchitectureRef, InputSpec
from prunecli.architectures.registry import architecture_of, build_dense
from prunecli.checkpoint.choosing import (
    check_left_out,
    choose_name,
    choose_part,
    is_declared,
    published_key,
)
from prunecli.checkpoint.fitting import Fit, Part, fit_module, input_of
from prunecli.checkpoint.headers import counter_like
from prunecli.checkpoint.misfits import fits_none, mismatch
from prunecli.checkpoint.other_names import ask_for_order, fit_in_order
from prunecli.checkpoint.parts import find_parts, fit_named, parts_of
from prunecli.checkpoint.selection import Selection, beside, described, select
from prunecli.checkpoint.state_dict import Unwrapped, spellings
from prunecli.errors import InputError
from prunecli.options.load import HEAD_ACTIVATIONS

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNTER, _VARIANCE = "num_batches_tracked", "running_var"


UNKNOWN_PIXELS = (
    "the normalisation is not known; pixels are scaled to 0..1 unless --mean and --std say"
)
"""What is said of images that nobody says more about."""


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
    selection: Selection | None = None,
) -> Recognised:
    """Return the one architecture that fits; raise `InputError` when none or several do.

    `architecture` and `arguments` are what the user said, and so is the `selection` of what is
    meant of the file. `sha256` is that of the file: it tells torchvision's published weights.
    """
    given, selection = dict(arguments or {}), selection or Selection()
    tensors = select(unwrapped.tensors, selection, where=where)
    file = _File(
        [*spellings(tensors)], unwrapped.declared, where, sha256, _known(selection.activation)
    )
    try:
        found = _recognised(file, architecture, given)
    except InputError as error:
        error.where = error.where or where
        raise
    if file.activation is not None and not _has(found.architecture, file.activation):
        raise InputError(
            f"--head-activation {file.activation} has no effect: the head has no place for one",
            code="OPTION_WITHOUT_EFFECT",
            where=where,
            hint="leave --head-activation out",
        )
    asked = len(unwrapped.tensors) - len(tensors)
    told = (f"{asked} tensors of the file were left out, as was asked",) if asked else ()
    return dataclasses.replace(found, notes=(*told, *found.notes))


def _known(activation: str | None) -> str | None:
    """Return an activation; raise `InputError` for one of no known name."""
    if activation is not None and activation not in HEAD_ACTIVATIONS:
        raise InputError(
            f"unknown activation {activation!r}",
            code="UNKNOWN_ACTIVATION",
            hint=f"known: {', '.join(HEAD_ACTIVATIONS)}",
        )
    return activation


def _has(architecture: ArchitectureRef, layer: str) -> bool:
    changes = architecture.changes.values()
    return any({LAYER: layer} in change for change in changes if isinstance(change, list))


def _recognised(file: _File, architecture: str | None, given: Mapping[str, Any]) -> Recognised:
    if architecture is None:
        return _by_itself(file, given)
    if ":" in architecture:
        return _of_factory(file, ArchitectureRef(architecture, given))
    architecture_of(architecture)  # an unknown name is an error of its own
    return _as_said(file, architecture, given)


@dataclass(frozen=True)
class _File:
    """The tensors of a file in every spelling of their names, and what else it tells."""

    spelled: list[dict[str, Tensor]]
    declared: str | None
    where: str
    sha256: str
    activation: str | None

    @property
    def shapes(self) -> list[dict[str, tuple[int, ...]]]:
        """The shapes, in every spelling."""
        return [shapes_of(tensors) for tensors in self.spelled]


def _by_itself(file: _File, given: Mapping[str, Any]) -> Recognised:
    """Find out what a file is of which nobody says it."""
    for tensors, shapes in zip(file.spelled, file.shapes, strict=True):
        fits = _whole(file, shapes)
        if not fits:
            found = find_parts(shapes, file.activation)
            fits = list(choose_part(found, where=file.where)) if found else []
        if not fits:
            continue
        fits = _different(fits)
        names = [fit.name for fit in fits]
        name, notes = choose_name(names, file.declared, sha256=file.sha256, where=file.where)
        if given or name not in names:
            return _as_said(file, name, given)
        fit = fits[names.index(name)]
        check_left_out(fit, tensors, where=file.where)
        return _finished(fit, tensors, given, notes, sha256=file.sha256)
    for shapes in file.shapes:
        ask_for_order(shapes, where=file.where)
    raise fits_none(file.shapes, where=file.where)


def _different(fits: list[Fit]) -> list[Fit]:
    """Return the fits less those that are another one once their image size is set."""
    if not any("img_size" in fit.reference.kwargs for fit in fits[1:]):
        return fits
    from prunecli.architectures.structure import structure_digest

    found = {structure_digest(build_dense(fit.reference)): fit for fit in reversed(fits)}
    return [fit for fit in fits if fit in found.values()]


def _whole(file: _File, shapes: Shapes) -> list[Fit]:
    """Return the fits of a file all of which is one network, below whatever prefix."""
    for part in parts_of(shapes):
        inside = part.inside
        if len(inside) < len(shapes):
            return []
        matches = match_all(inside)
        if not any(is_declared(match.name, file.declared) for match in matches):
            timm = match_timm(inside)
            meant = [match for match in timm if is_declared(match.name, file.declared)]
            matches = meant or matches or timm
        if matches:
            return [_whole_fit(part, match.name, match.arguments) for match in matches]
    return []


def _whole_fit(part: Part, name: str, arguments: Mapping[str, Any]) -> Fit:
    entry = architecture_of(name)
    auxiliary = entry.auxiliary
    names = list(part.inside)
    dropped = [n for n in names if auxiliary and n.startswith(auxiliary)]
    renamed = {part.prefix + n: n for n in names if n not in dropped}
    reference = ArchitectureRef(name, arguments)
    spec = input_of(entry.input, arguments, None)
    dropped_names = tuple(part.prefix + n for n in dropped)
    return Fit(part.prefix, reference, spec, renamed, (), dropped_names, len(renamed))


def _as_said(file: _File, name: str, given: Mapping[str, Any]) -> Recognised:
    """Read a file as the architecture that somebody named, with the arguments besides."""
    for tensors, shapes in zip(file.spelled, file.shapes, strict=True):
        found = fit_named(shapes, name, given, file.activation)
        if found:
            (fit,) = choose_part([[fit] for fit in found], where=file.where)
            return _finished(fit, tensors, given, (), sha256=file.sha256)
    for tensors, shapes in zip(file.spelled, file.shapes, strict=True):
        ordered = fit_in_order(shapes, name, given)
        if ordered is not None:
            return _finished(ordered, tensors, given, (), sha256=file.sha256)
    expected = (
        shapes_of(build_dense(ArchitectureRef(name, given)).state_dict())
        if given
        else expected_shapes(name, _nearest_spelling(file, name))
    )
    raise mismatch(name, file.shapes, expected, where=file.where)


def _nearest_spelling(file: _File, name: str) -> Shapes:
    """Return the part of a file that has most of the names whose dimensions are free."""
    free = [tensor for pairs in fingerprint_of(name).free.values() for tensor, _ in pairs]
    parts = [part.inside for shapes in file.shapes for part in parts_of(shapes)]
    return max(parts, key=lambda inside: sum(tensor in inside for tensor in free))


def _of_factory(file: _File, reference: ArchitectureRef) -> Recognised:
    """Compare with what the user's factory makes; its class count cannot be set for it."""
    module = build_dense(reference)
    state = module.state_dict()
    for tensors, shapes in zip(file.spelled, file.shapes, strict=True):
        fits = [fit_module(part, reference, state) for part in parts_of(shapes)]
        found = [[fit] for fit in fits if fit is not None]
        if found:
            (fit,) = choose_part(found, where=file.where)
            spec, notes = _factory_input(module)
            known = {k: t for k, t in _under_own_names(fit, tensors).items() if k in state}
            return Recognised(reference, known, spec, (*notes, *_left_out(fit)))
    raise mismatch(reference.name, file.shapes, shapes_of(state), where=file.where)


def _finished(
    fit: Fit,
    tensors: Mapping[str, Tensor],
    given: Mapping[str, Any],
    notes: tuple[str, ...],
    *,
    sha256: str,
) -> Recognised:
    entry = architecture_of(fit.name)
    key = None if fit.reference.changes else published_key(fit.name, sha256)
    published = entry.published[key] if key else None
    arguments = {
        **fit.reference.kwargs, **(published.arguments if published else {}), **given
    }  # fmt: skip
    told = [
        f"{fit.name}: the weights do not show {argument}; {assumption}"
        for argument, assumption in entry.hidden.items()
        if argument not in arguments
    ]
    if fit.dropped:
        heads = ", ".join(prefix.rstrip(".") for prefix in entry.auxiliary)
        count = sum(name.startswith(tuple(entry.auxiliary)) for name in _below(fit, tensors))
        told.append(
            f"{count} tensors of auxiliary heads ({heads}) were dropped: they are used in training "
            "only"
        )
    return Recognised(
        dataclasses.replace(fit.reference, kwargs=arguments),
        _under_own_names(fit, tensors),
        published.input if published else fit.input,
        (*notes, *told, *_left_out(fit), *fit.assumed),
        published.name if published else None,
    )


def _below(fit: Fit, tensors: Mapping[str, Tensor]) -> list[str]:
    cut = len(fit.prefix)
    return [name[cut:] for name in tensors if name.startswith(fit.prefix)]


def _left_out(fit: Fit) -> tuple[str, ...]:
    if not fit.left_out:
        return ()
    return (f"left out, as no part of {fit.name}: {described(beside(fit.left_out, fit.prefix))}",)


def _under_own_names(fit: Fit, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a fit under the names of its network, in the order of the file.

    The counters of batch norm go where its variance goes; files from before torch 0.4.1 lack them.
    """
    found = {}
    for name, tensor in tensors.items():
        own = fit.renamed.get(name)
        if own is None:
            continue
        found[own] = tensor
        stem, _, last = name.rpartition(".")
        if last == _VARIANCE:
            counter = tensors.get(f"{stem}.{_COUNTER}")
            if counter is None:
                counter = counter_like(tensor)
            found[f"{own.removesuffix(_VARIANCE)}{_COUNTER}"] = counter
    return found


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
    return spec, (UNKNOWN_PIXELS,)


def _first_channels(module: nn.Module) -> int:
    from torch import nn

    channels = (m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d))
    return next(channels, 1)
