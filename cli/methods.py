"""`prunecli methods`: everything that can be chosen by name, with where it comes from."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import typer

from prunecli.errors import unknown_name
from prunecli.options.names import OTHER_KINDS, REGISTERED
from prunecli.options.shared import OUTPUT
from prunecli.registry import Registry, has_plugins
from prunecli.wording import one_line

from .outcome import Outcome
from .reports import Method, MethodsReport
from .session import Session
from .signature import command

# The kinds that an option chooses from come first, in the order of the road.
FIRST = (
    "signal",
    "aggregate",
    "allocation",
    "weight allocation",
    "importance",
    "repair",
    "pruning method",
    "data format",
    "embedding",
    "volume",
    "subset rule",
    "optimizer",
    "schedule",
    "regularizer",
    "sparsity schedule",
    "augmentation",
)


KINDS = (*REGISTERED, *OTHER_KINDS)
"""All kinds that the library has; a plugin may have others."""


@partial(command, works=False)
def methods(
    session: Session,
    kind: Annotated[
        str | None,
        typer.Argument(
            show_default=False,
            help="One kind only, such as 'signal'.",
            autocompletion=lambda incomplete: [
                name for name in KINDS if name.startswith(incomplete)
            ],
        ),
    ] = None,
    *,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print Markdown tables.", rich_help_panel=OUTPUT),
    ] = False,
) -> Outcome | None:
    """List all signals, allocations, optimizers and formats, with their sources.

    Examples:
    $ prunecli methods
    $ prunecli methods signal --json
    """
    if kind is not None and kind not in KINDS and not has_plugins():
        raise unknown_name("kind of method", kind, KINDS)
    with session.screen.loading(), session.screen.working():
        known = {registry.kind: registry for registry in sorted(registries(), key=_rank)}
    if kind is not None:
        known = {kind: _kinds(known).get(kind)}
    listed = tuple(
        Method(name, entry.name, entry.summary, entry.source)
        for name, registry in known.items()
        for entry in registry
    )
    if markdown:
        session.screen.print_text("\n\n".join(markdown_table(listed, of=name) for name in known))
        return None
    brief = "\n".join(method.name for method in listed)
    return Outcome("methods", MethodsReport(listed), brief=brief)


def registries() -> Iterator[Registry[Any]]:
    """Yield every registry in prunecli, found by importing all its modules."""
    import prunecli

    seen: set[int] = set()
    for module in pkgutil.walk_packages(prunecli.__path__, "prunecli."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Registry) and id(value) not in seen:
                seen.add(id(value))
                yield value


def markdown_table(methods: tuple[Method, ...], *, of: str) -> str:
    """Return one kind as a Markdown table: the README holds these between markers."""
    rows = [
        f"| `{_cell(method.name)}` | {_cell(method.summary)} | {_cell(method.source)} |"
        for method in methods
        if method.kind == of
    ]
    return "\n".join([f"| {of} | what it is | source |", "|---|---|---|", *rows])


def _cell(text: str) -> str:
    """Return a text that stays within its cell of a Markdown table."""
    return one_line(text).replace("|", "\\|")


def _rank(registry: Registry[Any]) -> tuple[int, str]:
    kind = registry.kind
    return (FIRST.index(kind) if kind in FIRST else len(FIRST), kind)


def _kinds(known: dict[str, Registry[Any]]) -> Registry[Registry[Any]]:
    kinds: Registry[Registry[Any]] = Registry("kind of method")
    for name, registry in known.items():
        kinds.add(name, registry, summary=name)
    return kinds
