"""`prunecli compare`: several models side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from prunecli.options import CompareOptions, LoadOptions
from prunecli.options.declare import is_given, needs
from prunecli.preflight.files import check_inputs

from . import options as shared
from .outcome import Outcome
from .session import Session
from .signature import command

Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL MODEL...",
        show_default=False,
        help="Checkpoints and ONNX files. The first is what the others are compared with.",
    ),
]

_WITH_DATA = needs("data", hint="add --data DIR")


@dataclass(frozen=True)
class Images:
    """What the models are scored on, and where the page goes."""

    data: str | None = shared.data(None)
    report: Path | None = shared.output(
        None,
        "Write the comparison as a self-contained HTML file.",
        metavar="FILE.html",
        basic=True,
        trusts=is_given,
    )
    overwrite: bool = shared.output(
        False, "Overwrite existing outputs.", trusts=is_given, flag_only=True
    )


@dataclass(frozen=True)
class Accepted:
    """What every model but the first has to reach."""

    min_accuracy: float | None = shared.gate(
        None,
        "Minimum accuracy of every model (0.9 or 90%).",
        metavar="FRACTION",
        form="share",
        basic=True,
        needs=(_WITH_DATA,),
    )
    max_drop: float | None = shared.gate(
        None,
        "Maximum drop in accuracy against the first model (0.01 or 1%).",
        metavar="FRACTION",
        form="share",
        basic=True,
        needs=(_WITH_DATA,),
    )


@command
def compare(
    session: Session,
    models: Models,
    *,
    images: Images,
    options: CompareOptions,
    accepted: Accepted,
    load: LoadOptions,
) -> Outcome:
    """Compare models side by side: costs, size, time, accuracy, agreement with the first.

    Examples:
    $ prunecli compare resnet56.th slim.pt slim.onnx --data images/
    $ prunecli compare dense.pt slim.pt --data images/ --max-drop 1% --json
    $ prunecli compare a.onnx b.onnx --no-latency
    """
    check_inputs(*models, data=images.data)
    verbs = session.library()
    from prunecli.report import Gates, missed_gate

    with session.screen.working() as progress:
        report = verbs.compare(
            models,
            data=images.data,
            options=options,
            load=load,
            page=images.report,
            overwrite=images.overwrite,
            progress=progress,
        )
    gates = Gates(min_accuracy=accepted.min_accuracy, max_drop=accepted.max_drop)
    return Outcome("compare", report, gate=missed_gate(gates, report), warnings=report.warnings)
