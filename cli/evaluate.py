"""`prunecli evaluate`: accuracy of a checkpoint or an ONNX file."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prunecli.options import LoadOptions
from prunecli.options.declare import REQUIRED, needs
from prunecli.options.shared import GATES, SPLITS
from prunecli.preflight.files import check_inputs

from . import options as shared
from .outcome import Outcome
from .session import Session
from .signature import command


@dataclass(frozen=True)
class Scoring:
    """What a model is scored on."""

    data: str = shared.data(REQUIRED)
    split: str = shared.on_data(
        "auto",
        "Split: train, held_out, test, or auto (test if there is one, else held_out).",
        metavar="NAME",
        choices=SPLITS,
    )
    batch_size: int = shared.on_data(256, "Batch size.", metavar="N", minimum=1)
    limit: int | None = shared.limit()


@dataclass(frozen=True)
class Accepted(shared.AccuracyGate):
    """What the model has to reach."""

    max_drop: float | None = shared.max_drop(
        "against", need=needs("against", hint="add --against dense.pt")
    )
    against: Path | None = shared.model(
        help="Model to compare with, for --max-drop.",
        panel=GATES,
        basic=True,
        needs=(needs("max_drop", hint="add --max-drop 1%"),),
    )


@partial(command, splits=lambda _: True)
def evaluate(
    session: Session,
    model: shared.Model = None,
    *,
    scoring: Scoring,
    accepted: Accepted,
    load: LoadOptions,
) -> Outcome:
    """Measure accuracy, top-5 accuracy and loss. With -q, print the accuracy alone.

    Examples:
    $ prunecli evaluate resnet56.pruned.finetuned.pt --data images/
    $ prunecli evaluate model.onnx --data images/ --min-accuracy 0.9
    $ prunecli evaluate slim.pt --data images/ --against dense.pt --max-drop 1%
    """
    path = session.checkpoint(model, exported=True)
    check_inputs(accepted.against, data=scoring.data)
    verbs = session.library()
    with session.screen.working() as progress:
        how = {**vars(scoring), "load": load, "progress": progress}
        report = verbs.evaluate(path, **how, against=accepted.against)
        reference = None if accepted.against is None else verbs.evaluate(accepted.against, **how)
    from prunecli.report import Gates, missed_gate

    gate = missed_gate(
        Gates(accepted.min_accuracy, accepted.max_drop),
        report,
        reference=None if reference is None else reference.accuracy,
    )
    brief = f"{report.accuracy:.6g}"
    return Outcome("evaluate", report, brief=brief, gate=gate, warnings=report.warnings)
