"""What completion offers for an option, without importing torch."""

from collections.abc import Callable, Iterable
from pathlib import Path

from prunecli.options.declare import Declared
from prunecli.preflight.files import BUILT_IN_DATA

SEPARATORS = ",+"
"""What stands between several names in one word."""


def completion(known: Declared) -> Callable[[str], list[str]] | None:
    """Return what completes an option; None for one that takes no names.

    Of several names in one word the last is completed.
    """
    offer = OFFERED.get(known.name)
    said = known.option
    if offer is None:
        names = said.choices or said.suggested or (said.names.offered if said.names else ())
        offer = (lambda: names) if names else None
    return None if offer is None else _completer(offer)


def _completer(offer: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        begun = max(incomplete.rfind(each) for each in SEPARATORS) + 1
        before, last = incomplete[:begun], incomplete[begun:]
        return [before + name for name in offer() if name.startswith(last)]

    return complete


def _architectures() -> Iterable[str]:
    from prunecli.architectures.registry import ARCHITECTURES
    from prunecli.architectures.timm_models import FROM_TIMM
    from prunecli.architectures.timm_names import timm_names

    return (*ARCHITECTURES.names(), *(f"{FROM_TIMM}{name}" for name in timm_names()))


def _data() -> Iterable[str]:
    """Yield the words for a data set, and what lies in the current folder."""
    yield from BUILT_IN_DATA
    for path in sorted(Path().iterdir()):
        if not path.name.startswith("."):
            yield f"{path}/" if path.is_dir() else str(path)


OFFERED: dict[str, Callable[[], Iterable[str]]] = {"arch": _architectures, "data": _data}
"""Options whose words are looked for as they are asked for."""
