"""`prunecli guide`: the manual, shipped with the package as Markdown."""

import sys
from functools import cache, partial
from importlib import resources
from typing import Annotated

import typer

from prunecli.registry import Registry

from .outcome import Outcome
from .reports import GuideEntry, GuideList, GuideText
from .session import Session
from .signature import command

TOPICS = {
    "how-to": (
        "checkpoints",
        "compress",
        "budgets",
        "latency",
        "int8",
        "training",
        "iterative",
        "learning",
        "processes",
        "weights",
        "dead",
        "data",
        "datasets",
        "scripts",
        "reports",
        "python",
    ),
    "explanation": ("proof", "signals", "allocation"),
    "reference": ("names", "exit-codes", "json"),
    "development": ("extending",),
}
"""Every guide by the kind of question that it answers, in the order of the list."""


def _complete(incomplete: str) -> list[str]:
    names = (name for topic in TOPICS.values() for name in topic)
    return [name for name in names if name.startswith(incomplete)]


@partial(command, works=False)
def guide(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(
            show_default=False,
            help="One guide, such as 'budgets'. Without it: the list.",
            autocompletion=_complete,
        ),
    ] = None,
) -> Outcome | None:
    """Read the manual: how-to guides, explanations and reference.

    Examples:
    $ prunecli guide
    $ prunecli guide budgets
    $ prunecli guide proof > proof.md
    """
    screen = session.screen
    if name is not None:
        found = guides().get(name)
        if screen.talks and not sys.stdout.isatty():
            screen.print_text(found.text)  # a file or a pipe takes the Markdown as it is
            return None
        return Outcome("guide", found, brief=found.text)
    listed = tuple(GuideEntry(entry.name, entry.value.topic, entry.summary) for entry in guides())
    return Outcome("guide", GuideList(listed), brief="\n".join(entry.name for entry in listed))


@cache
def guides() -> Registry[GuideText]:
    """Return all guides, read from the package."""
    folder = resources.files("prunecli") / "guides"
    found: Registry[GuideText] = Registry("guide")
    for topic, names in TOPICS.items():
        for name in names:
            text = (folder / f"{name}.md").read_text(encoding="utf-8").strip()
            _, _, summary = text.splitlines()[:3]  # the title, an empty line, what it is for
            found.add(name, GuideText(name, topic, summary, text), summary=summary)
    return found
