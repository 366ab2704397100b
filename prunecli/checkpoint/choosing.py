"""Of several architectures or parts that fit: the one that is meant, or an error that asks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunecli.architectures.lookup import aliases_of
from prunecli.architectures.registry import architecture_of
from prunecli.architectures.timm_models import FROM_TIMM
from prunecli.checkpoint.selection import beside, described
from prunecli.checkpoint.side import is_side
from prunecli.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from prunecli.checkpoint.fitting import Fit

_PORTED = "tf_"
"""timm calls a model thus whose weights came from TensorFlow, with the padding of that."""

_LARGE_SHARE = 0.3


def choose_name(
    names: Sequence[str], declared: str | None, *, sha256: str, where: str
) -> tuple[str, tuple[str, ...]]:
    """Return the architecture that is meant among those that fit, and what there is to say.

    That is the one which the file names, be it by another name of the same, the only one, that
    whose published file this is, or the plain one beside its port from TensorFlow. Raises
    `InputError` (`AMBIGUOUS_ARCHITECTURE`).
    """
    by_name = [alias for name in names for alias in aliases_of(name) if is_called(alias, declared)]
    if by_name:
        return by_name[0], ()
    by_sha = [name for name in names if published_key(name, sha256)]
    for candidates in (names, by_sha):
        if len(candidates) == 1:
            return candidates[0], _aliases(candidates[0])
    plain = names[0]
    port = f"{FROM_TIMM}{_PORTED}{plain.removeprefix(FROM_TIMM)}"
    if list(names) == [plain, port]:
        note = (
            f"taken as {plain}; {port} has the same names and shapes, and pads otherwise: "
            f"--arch {port}, if it is that"
        )
        return plain, (note, *_aliases(plain))
    raise InputError(
        f"the names and shapes of these weights fit {len(names)} architectures: {', '.join(names)}",
        code="AMBIGUOUS_ARCHITECTURE",
        where=where,
        hint=f"say which one it is: {' or '.join(f'--arch {name}' for name in names)}",
    )


def is_declared(name: str, declared: str | None) -> bool:
    """Tell whether a file that declares itself means this architecture, by any of its names."""
    return any(is_called(alias, declared) for alias in aliases_of(name))


def is_called(name: str, declared: str | None) -> bool:
    """Tell whether a file that declares itself says this very name."""
    plain = (declared or "").removeprefix(FROM_TIMM).partition(".")[0]
    return declared is not None and name in (declared, plain, FROM_TIMM + plain)


def published_key(name: str, sha256: str) -> str | None:
    """Return by which digits a file is one that was published for an architecture."""
    keys = architecture_of(name).published if not name.startswith(FROM_TIMM) else ()
    return next((key for key in keys if sha256.startswith(key)), None)


def _aliases(name: str) -> tuple[str, ...]:
    """Return what to say of other names of a model whose images are normalised otherwise."""
    own = architecture_of(name).input
    others = [
        alias
        for alias in aliases_of(name)[1:]
        if (architecture_of(alias).input.mean, architecture_of(alias).input.std)
        != (own.mean, own.std)
    ]
    if not others:
        return ()
    note = (
        f"taken as {name}; {others[0]} is the same with another normalisation of its images: "
        f"--arch {others[0]}, or --mean and --std"
    )
    return (note,)


def choose_part(found: Sequence[Sequence[Fit]], *, where: str) -> Sequence[Fit]:
    """Return the part of a file that is meant, with all that it fits.

    A teacher or a loss beside the model is not, if it is another network. Raises `InputError`
    (`AMBIGUOUS_WEIGHTS`).
    """
    main = [fits for fits in found if not is_side(fits[0].prefix)]
    taken = {fit.name for fits in main for fit in fits}
    besides = {fit.name for fits in found if fits not in main for fit in fits}
    if len(main) == 1 and not taken & besides:
        return main[0]
    if len(found) == 1:
        return found[0]
    parts = [f"{_called(fits[0])} ({fits[0].name})" for fits in found]
    raise InputError(
        f"{len(found)} parts of this file are models: {', '.join(parts)}",
        code="AMBIGUOUS_WEIGHTS",
        where=where,
        hint=f"say which one: {' or '.join(f'--prefix {_called(fits[0])}' for fits in found)}",
    )


def _called(fit: Fit) -> str:
    return fit.prefix.rstrip(".") or "the first"


def check_left_out(fit: Fit, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Raise `InputError` (`PART_OF_MODEL`) where what is left out seems to compute as well.

    So do convolutions, and what is a large share of all the values, unless their name says that
    they serve training.
    """
    left = {
        root: names for root, names in beside(fit.left_out, fit.prefix).items() if not is_side(root)
    }
    sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    names = [name for inner in left.values() for name in inner]
    whole = sum(map(math.prod, sizes.values()))
    share = sum(math.prod(sizes[name]) for name in names) / max(whole, 1)
    if share < _LARGE_SHARE and not any(_is_kernel(sizes[name]) for name in names):
        return
    prefix = fit.prefix.rstrip(".")
    ways = [f"take it alone: --prefix {prefix}"] if prefix else []
    ignored = " ".join(f"--ignore '{root}.*'" for root in left)
    ways.append(f"leave the others out: {ignored}")
    raise InputError(
        f"{fit.name} is only a part of this model: there are {described(left)} besides, "
        f"{share:.0%} of its values",
        code="PART_OF_MODEL",
        where=where,
        hint=f"name the whole: --arch package.module:function; or {'; or '.join(ways)}",
    )


def _is_kernel(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and max(shape[2:]) > 1
