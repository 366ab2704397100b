"""What of a file's tensors is meant, where its reader says so: a part, less this, renamed thus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from prunecli.errors import InputError
from prunecli.wording import counted, some

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from prunecli.options import LoadOptions

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """The tensors whose names begin with `prefix`, less those that fit a pattern of `ignore`.

    `renamed` maps the beginnings of names to what they are to be (`{"fc.1": "fc"}`). Names and
    patterns are those of the file, and renaming comes last, before the prefix goes. `activation` is
    what stands between the layers of a head, which no tensor shows.
    """

    prefix: str | None = None
    ignore: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    activation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what was said, as plain JSON data."""
        said = {
            "prefix": self.prefix,
            "ignore": list(self.ignore),
            "map": dict(self.renamed),
            "head-activation": self.activation,
        }
        return {key: value for key, value in said.items() if value}


def selection_of(options: LoadOptions) -> Selection:
    """Return the selection that the options of reading say."""
    return Selection(options.prefix, options.ignore, options.renamed, options.head_activation)


def select(tensors: Mapping[str, T], selection: Selection, *, where: str) -> dict[str, T]:
    """Return the selected tensors under their new names.

    Raises `InputError`: `NO_SUCH_TENSORS` for a word that no name follows, with the names that are
    there; `RENAMED_TWICE` where two tensors would get one name.
    """
    kept = dict(tensors)
    for pattern in selection.ignore:
        left = {name: value for name, value in kept.items() if not fnmatchcase(name, pattern)}
        if len(left) == len(kept):
            raise _no_such("--ignore", pattern, tensors, where)
        kept = left
    for before, after in selection.renamed.items():
        names = [_renamed(name, before, after) for name in kept]
        if names == list(kept):
            raise _no_such("--map", f"{before}={after}", tensors, where)
        twice, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise InputError(
                f"with --map {before}={after} two tensors would be called {twice}",
                code="RENAMED_TWICE",
                where=where,
                hint=f"leave one of them out: --ignore '{twice}'",
            )
        kept = dict(zip(names, kept.values(), strict=True))
    if selection.prefix:
        prefix = selection.prefix.rstrip(".")
        inside = {
            name[len(prefix) + 1 :]: value
            for name, value in kept.items()
            if name.startswith(f"{prefix}.")
        }
        if not inside:
            raise _no_such("--prefix", selection.prefix, tensors, where)
        kept = inside
    if not kept:
        raise InputError(
            "nothing is left of the file",
            code="NO_SUCH_TENSORS",
            where=where,
            hint="leave one of the --ignore out",
        )
    return kept


def begins(name: str, prefix: str) -> bool:
    """Tell whether a name is a prefix or lies below it.

    >>> begins("fc.1.weight", "fc.1"), begins("fc.10.weight", "fc.1")
    (True, False)
    """
    return name == prefix or name.startswith(f"{prefix}.") or not prefix


def _renamed(name: str, before: str, after: str) -> str:
    if not begins(name, before):
        return name
    rest = name[len(before) :].lstrip(".")
    return f"{after}.{rest}".strip(".")


def groups(names: Iterable[str], depth: int = 1) -> dict[str, list[str]]:
    """Return names by their first `depth` parts, in their order.

    >>> groups(["fc.weight", "fc.bias", "queue"])
    {'fc': ['fc.weight', 'fc.bias'], 'queue': ['queue']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return found


def beside(names: Iterable[str], prefix: str) -> dict[str, list[str]]:
    """Return names by the first of their parts that they do not share with a prefix.

    >>> beside(["net.head.weight", "net.body.fpn.weight", "loss"], "net.body.")
    {'net.head': ['net.head.weight'], 'net.body.fpn': ['net.body.fpn.weight'], 'loss': ['loss']}
    """
    around = prefix.split(".")[:-1]
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        shared = 0
        while shared < min(len(around), len(parts) - 1) and parts[shared] == around[shared]:
            shared += 1
        found.setdefault(".".join(parts[: shared + 1]), []).append(name)
    return found


def described(found: Mapping[str, Collection[str]]) -> str:
    """Return in words what groups of tensors there are.

    >>> described(groups(["fc.weight", "fc.bias", "queue"]))
    'fc.* (2 tensors), queue'
    """
    told = [
        group if list(names) == [group] else f"{group}.* ({counted(len(names), 'tensor')})"
        for group, names in found.items()
    ]
    return some(told)


def _no_such(option: str, said: str, names: Collection[str], where: str) -> InputError:
    depth = next((depth for depth in range(1, 8) if len(groups(names, depth)) > 1), 1)
    return InputError(
        f"{option} {said}: no tensor has such a name",
        code="NO_SUCH_TENSORS",
        where=where,
        hint=f"the file has {described(groups(names, depth))}",
    )
