"""The options that several verbs share and that only the command line has."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from prunecli.options.declare import Needs, flag_of, is_given, option
from prunecli.options.shared import DATA, GATES, OUTPUT
from prunecli.preflight.outputs import PICTURES, check_folder, check_page, check_room

Model = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Checkpoint (default: the path on piped stdin, else the newest output in this "
        "folder).",
    ),
]

output = partial(option, panel=OUTPUT)
gate = partial(option, panel=GATES)
model = partial(option, None, metavar="MODEL")
data = partial(
    option,
    help="Images: folders, a .csv, MNIST, CIFAR, a .npz, a saved Hugging Face data set, or the "
    "built-in 'digits'.",
    metavar="DIR",
    panel=DATA,
    basic=True,
)
limit = partial(
    option,
    None,
    "Maximum number of images to use.",
    metavar="N",
    minimum=1,
    panel=DATA,
    basic=True,
)
on_data = partial(option, panel=DATA)
out = partial(
    option, None, flags="--out -o", panel=OUTPUT, basic=True, trusts=is_given, flag_only=True
)
resume = partial(option, False, "Resume an interrupted run.", basic=True)


def max_drop(reference: str, *, need: Needs) -> float | None:
    """Return the field of a gate on the accuracy that another model has."""
    return gate(
        None,
        f"Maximum drop in accuracy against {flag_of(reference)} (0.01 or 1%).",
        metavar="FRACTION",
        form="share",
        basic=True,
        needs=(need,),
    )


@dataclass(frozen=True)
class Pages:
    """What is written beside the result, for people, and whether files may be replaced."""

    report: Path | None = output(
        None,
        "Write a report with all figures, tables and plots: a self-contained HTML file that works "
        "offline.",
        metavar="FILE.html",
        basic=True,
        trusts=is_given,
    )
    plots: Path | None = output(
        None,
        "Write the plots of the report to this folder, as SVG and PNG.",
        metavar="DIR",
        trusts=is_given,
    )
    overwrite: bool = output(
        False, "Overwrite existing outputs.", basic=True, trusts=is_given, flag_only=True
    )

    def check(self, verb: str, *, inputs: Iterable[Path | str | None]) -> None:
        """Raise `InputError` where a page or pictures of a verb cannot be put."""
        if self.report is not None:
            given = [Path(each) for each in inputs if each is not None]
            check_page(self.report, inputs=given, overwrite=self.overwrite)
            check_room(self.report)
        if self.plots is not None:
            check_folder(self.plots, PICTURES.get(verb, ()), overwrite=self.overwrite)

    @property
    def arguments(self) -> dict[str, Any]:
        """Return them as a verb of the library takes them."""
        return {"page": self.report, "plots": self.plots, "overwrite": self.overwrite}


@dataclass(frozen=True)
class Talk:
    """How a verb talks."""

    json: bool = output(False, "Print one JSON object on stdout.", basic=True)
    quiet: bool = output(
        False,
        "Print only the result on stdout: the output path, or the accuracy for evaluate.",
        flags="--quiet -q",
        basic=True,
    )
    verbose: bool = output(
        False, "Show all rows, library warnings and tracebacks.", flags="--verbose", basic=True
    )
    format: str = output(
        "text",
        "Messages for people (text), or also as annotations and as the summary of a GitHub "
        "workflow (github).",
        metavar="NAME",
        choices=("text", "github"),
    )
    junit: Path | None = output(
        None,
        "Write the outcome as a JUnit file, for the test reports of CI systems.",
        metavar="FILE.xml",
        trusts=is_given,
    )


@dataclass(frozen=True)
class AccuracyGate:
    """The lowest accuracy to accept, beside gates that a verb adds."""

    min_accuracy: float | None = gate(
        None, "Minimum accuracy (0.9 or 90%).", metavar="FRACTION", form="share", basic=True
    )


def min_agreement(need: Needs) -> float | None:
    """Return the field of a gate on the agreement with another model."""
    return gate(
        None,
        "Minimum agreement with the other model (0.9 or 90%).",
        metavar="FRACTION",
        form="share",
        needs=(need,),
    )
