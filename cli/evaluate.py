"""`prunecli evaluate`: accuracy of a checkpoint or an ONNX file."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prunecli.options import LoadOptions
from prunecli.options.declare import REQUIRED, needs
from prunecli.options.shared import DATA, SPLITS
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
    against: Path | None = shared.model(
        help="Model to compare every output with, on images with or without labels.",
        panel=DATA,
        basic=True,
    )


_COMPARED = needs("against", hint="add --against dense.pt")


@dataclass(frozen=True)
class Accepted(shared.AccuracyGate):
    """What the model has to reach."""

    max_drop: float | None = shared.max_drop("against", need=_COMPARED)
    min_agreement: float | None = shared.min_agreement(_COMPARED)


@partial(command, splits=lambda _: True)
def evaluate(
    session: Session,
    model: shared.Model = None,
    *,
    scoring: Scoring,
    accepted: Accepted,
    load: LoadOptions,
) -> Outcome:
    """Measure accuracy, top-5 accuracy and loss, or agreement with another model.

    With -q, print the accuracy alone; without labels, the agreement.

    Examples:
    $ prunecli evaluate resnet56.pruned.finetuned.pt --data images/
    $ prunecli evaluate model.onnx --data images/ --min-accuracy 0.9
    $ prunecli evaluate slim.pt --data images/ --against dense.pt --max-drop 1%
    $ prunecli evaluate slim.pt --data photos/ --against dense.pt --min-agreement 95%
    """
    path = session.checkpoint(model, exported=True)
    check_inputs(scoring.against, data=scoring.data)
    verbs = session.library()
    from prunecli.report import AGREEMENT, Gates, missed_gate

    with session.screen.working() as progress:
        how = {**vars(scoring), "load": load, "progress": progress}
        report = verbs.evaluate(path, **how)
        reference = None
        if accepted.max_drop is not None and report.measure != AGREEMENT:
            reference = verbs.evaluate(scoring.against, **{**how, "against": None}).accuracy

    gates = Gates(accepted.min_accuracy, accepted.max_drop, min_agreement=accepted.min_agreement)
    gate = missed_gate(gates, report, reference=reference)
    brief = f"{report.accuracy:.6g}"
    return Outcome("evaluate", report, brief=brief, gate=gate, warnings=report.warnings)
