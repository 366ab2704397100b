"""Options as somebody would type them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from prunecli.options.declare import changes_of, declared, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def typed_words(options: Any) -> tuple[str, ...]:
    """Return the words for all options of a dataclass that are not at their defaults.

    >>> from prunecli.options import LoadOptions
    >>> typed_words(LoadOptions(input_size=(64, 96), ignore=("loss.*",)))
    ('--input-size', '64x96', '--ignore', 'loss.*')
    """
    values, changed = values_of(options), changes_of(options)
    words: list[str] = []
    for known in declared(type(options)):
        if known.name in changed:
            words += _words(known.flags[0], known.option.form, values[known.name])
    return tuple(words)


def _words(flag: str, form: str, value: Any) -> Iterable[str]:
    if isinstance(value, bool):
        yield from (flag,) if value else ()
        return
    for text in WRITTEN.get(form, _plain)(value):
        yield from (flag, text)


def _plain(value: Any) -> Iterable[str]:
    return map(str, value) if isinstance(value, tuple) else (str(value),)


def _joined(values: Any) -> Iterable[str]:
    return (",".join(f"{one:g}" if isinstance(one, float) else str(one) for one in values),)


def _shapes(values: Iterable[tuple[str, tuple[int, ...], str]]) -> Iterable[str]:
    for name, sizes, kind in values:
        yield f"{f'{name}=' if name else ''}{'x'.join(map(str, sizes))}:{kind}"


def _pairs(values: Mapping[str, Any]) -> Iterable[str]:
    for key, value in values.items():
        yield f"{key}={value if isinstance(value, str) else json.dumps(value)}"


WRITTEN: Mapping[str, Callable[[Any], Iterable[str]]] = {
    "size": lambda value: ("x".join(map(str, value)),),
    "numbers": _joined,
    "names": _joined,
    "counts": _joined,
    "shapes": _shapes,
    "pairs": _pairs,
    "renames": _pairs,
}
"""How the values of options are written whose words are no plain ones, by their form."""
