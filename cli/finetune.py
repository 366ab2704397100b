"""`prunecli finetune`: fine-tune a pruned model, with the original as teacher if it is there."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prunecli.options import FinetuneOptions, LoadOptions
from prunecli.options.declare import REQUIRED, is_given, needs, option
from prunecli.options.finetune import LABELS, OUTPUTS
from prunecli.options.shared import DISTILLATION, LEARNABILITY, OUTPUT, TAUGHT, teacher_file
from prunecli.preflight.analysis import check_records
from prunecli.preflight.files import check_inputs
from prunecli.preflight.outputs import check_written, room_for
from prunecli.preflight.training import check_teaching, check_training

from . import options as shared
from .following import after_training
from .outcome import Outcome
from .parsing import checkpoint_path
from .session import Session
from .signature import command


@dataclass(frozen=True)
class Run:
    """What `finetune` is asked for beside the choices of the library."""

    data: str = shared.data(REQUIRED)
    teacher: Path | None = shared.model(
        help="Checkpoint to distil from (default: what the model was pruned from, if that file is "
        "still there), or none.",
        panel=DISTILLATION,
        basic=True,
    )
    resume: bool = shared.resume(panel=OUTPUT)
    record_learnability: Path | None = option(
        None,
        "Record after which epochs each training image was classified correctly.",
        metavar="FILE.parquet",
        panel=LEARNABILITY,
        trusts=is_given,
        needs=(needs("loss", LABELS, hint="leave --loss outputs out: it looks at no labels"),),
    )
    continue_record: bool = option(
        False,
        "Add the epochs to an existing record of the same model and images.",
        panel=LEARNABILITY,
        needs=(needs("record_learnability", hint="add --record-learnability FILE.parquet"),),
    )
    out: Path | None = shared.out(
        help="Output: .pt or .safetensors (default: <stem>.finetuned.pt, in this folder)."
    )


@dataclass(frozen=True)
class Accepted(shared.AccuracyGate):
    """What the result has to reach."""

    max_drop: float | None = shared.max_drop("teacher", need=TAUGHT)
    min_agreement: float | None = shared.min_agreement(needs("loss", OUTPUTS))


@partial(command, splits=lambda _: True)
def finetune(
    session: Session,
    model: shared.Model = None,
    *,
    run: Run,
    options: FinetuneOptions,
    accepted: Accepted,
    pages: shared.Pages,
    load: LoadOptions,
) -> Outcome:
    """Fine-tune a pruned model to recover accuracy. Held-out images choose the best epoch.

    Examples:
    $ prunecli finetune resnet56.pruned.pt --data images/ --epochs 20
    $ prunecli finetune model.pruned.pt --data images/ --teacher model.pt
    $ prunecli finetune model.pruned.pt --data images/ --teacher none
    $ prunecli finetune model.pruned.pt --data images/ --loss outputs
    $ prunecli finetune pretrained.pt --data flowers/ --new-head --epochs 20
    $ prunecli finetune model.pruned.pt --data images/ --report training.html
    $ prunecli finetune model.pruned.pt --data images/ --resume
    $ prunecli finetune model.pt --data images/ --sparsity 0.9 --sparsity-schedule cubic
    $ prunecli finetune model.pt --data images/ --regularizer bridgeout --p 0.3 --q 1.5
    $ prunecli finetune model.pt --data images/ --record-learnability run.parquet
    $ prunecli finetune new.pt --data images/ --curriculum run.parquet
    $ prunecli finetune new.pt --data images/ --importance-sampling run.parquet
    """
    path = session.checkpoint(model)
    output = checkpoint_path(run.out, model=path, ending=".finetuned.pt")
    teacher, record = teacher_file(run.teacher), run.record_learnability
    check_training(options)
    check_teaching(options, run.teacher)
    check_inputs(teacher, data=run.data)
    check_records((*options.curriculum, *options.importance_sampling))
    check_written(
        output,
        inputs=(path, teacher),
        overwrite=pages.overwrite,
        needed=room_for(path),
    )
    if record is not None:
        fine = pages.overwrite or run.continue_record
        check_written(record, inputs=(path, output), overwrite=fine, flag="--record-learnability")
    pages.check("finetune", inputs=(path, teacher, run.data))
    verbs = session.library()
    from prunecli.report import Gates, missed_gate

    gates = Gates(accepted.min_accuracy, accepted.max_drop, min_agreement=accepted.min_agreement)
    with session.screen.working() as progress:
        found = verbs.finetune(
            path,
            data=run.data,
            output=output,
            teacher=run.teacher,
            options=options,
            record=run.record_learnability,
            continue_record=run.continue_record,
            **pages.arguments,
            load=load,
            resume=run.resume,
            gates=gates,
            said=session.typed,
            command=session.command_line,
            progress=progress,
        )
    if found.taught_by is None and "max_drop" not in session.typed:
        gates = Gates(accepted.min_accuracy)  # a setting that nothing follows is no gate
    return Outcome(
        "finetune",
        found,
        output=found.output,
        gate=missed_gate(gates, found),
        following=after_training(found),
        warnings=found.warnings,
    )
