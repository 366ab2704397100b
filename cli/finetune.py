"""`prunecli finetune`: train a cut network, with the dense one as teacher where it is given."""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.options import FinetuneOptions
from prunecli.report import Gates, missed_gate

from . import options as shared
from .following import after_training
from .outcome import Outcome
from .parsing import checkpoint_path, load_options, refuse_idle, share, usage_error
from .session import start

LEARNING = "Which images are hard"
ZEROING = "Zeroing weights along the way (zeros that are there stay in any case)"


def finetune(
    context: typer.Context,
    model: shared.Model = None,
    *,
    data: shared.NeededData,
    epochs: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Times through the images.", rich_help_panel=shared.TRAINING
        ),
    ] = FinetuneOptions.epochs,
    lr: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Highest learning rate (default: the optimiser's own).",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.lr,
    optimizer: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="See 'prunecli methods'.", rich_help_panel=shared.TRAINING
        ),
    ] = FinetuneOptions.optimizer,
    schedule: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="See 'prunecli methods'.", rich_help_panel=shared.TRAINING
        ),
    ] = FinetuneOptions.schedule,
    batch_size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Images per step.", rich_help_panel=shared.TRAINING),
    ] = FinetuneOptions.batch_size,
    weight_decay: Annotated[
        float,
        typer.Option(
            min=0, metavar="X", help="Pull of the weights to zero.", rich_help_panel=shared.TRAINING
        ),
    ] = FinetuneOptions.weight_decay,
    momentum: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Share of the last step.",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.momentum,
    amp: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="Mixed precision: auto, no, fp16 or bf16.",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.amp,
    ema: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            max=1,
            help="Decay of the averaged weights; 0: none.",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.ema,
    augment: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="See 'prunecli methods'.", rich_help_panel=shared.TRAINING
        ),
    ] = FinetuneOptions.augment,
    label_smoothing: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Share given to the wrong labels.",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.label_smoothing,
    clip: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            help="Largest norm of the gradient; 0: any.",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.clip,
    held_out: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            max=0.9,
            help="Share of the training images that choose the best epoch.",
            rich_help_panel=shared.TRAINING,
        ),
    ] = FinetuneOptions.held_out,
    granularity: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="What --sparsity zeroes along the way: weight.",
            rich_help_panel=ZEROING,
        ),
    ] = FinetuneOptions.granularity,
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            show_default=False,
            help="Zero this share of the weights along the way: 0.9 or 90%.",
            rich_help_panel=ZEROING,
        ),
    ] = None,
    sparsity_schedule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How the sparsity grows; see 'prunecli methods'.",
            rich_help_panel=ZEROING,
        ),
    ] = FinetuneOptions.sparsity_schedule,
    sparsity_every: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Steps between two choices.", rich_help_panel=ZEROING
        ),
    ] = FinetuneOptions.sparsity_every,
    sparsity_until: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            help="Part of the steps over which it grows.",
            rich_help_panel=ZEROING,
        ),
    ] = FinetuneOptions.sparsity_until,
    allocation: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How the zeros are spread over the layers; see 'prunecli methods'.",
            rich_help_panel=ZEROING,
        ),
    ] = FinetuneOptions.allocation,
    record_learnability: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet",
            show_default=False,
            help="Write which training images were right after which epoch.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    record_mode: Annotated[
        str,
        typer.Option(
            "--record-learnability-mode",
            metavar="KIND",
            help="evaluation: in one more pass after each epoch; training: as they are trained "
            "on, augmented, at no cost.",
            rich_help_panel=LEARNING,
        ),
    ] = FinetuneOptions.record_learnability_mode,
    continue_record: Annotated[
        bool,
        typer.Option(
            "--continue-record",
            help="Add the epochs to a record that is there, of the same network and images.",
            rich_help_panel=LEARNING,
        ),
    ] = False,
    curriculum: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.parquet",
            show_default=False,
            help="Train on the easiest 30 % of every class first, on all from half of the epochs "
            "on; as many updates as without. A record of learnability, or several.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    importance_sampling: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.parquet",
            show_default=False,
            help="Draw hard images more often, and count them less each time, so that the mean "
            "loss is the same. A record of learnability, or several.",
            rich_help_panel=LEARNING,
        ),
    ] = None,
    limit: shared.Limit = FinetuneOptions.limit,
    seed: shared.Seed = FinetuneOptions.seed,
    teacher: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", help="The dense checkpoint.", rich_help_panel=shared.DISTILLING
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0.01,
            metavar="X",
            help="Softness of the teacher.",
            rich_help_panel=shared.DISTILLING,
        ),
    ] = FinetuneOptions.temperature,
    alpha: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="X",
            max=1,
            help="Weight of the teacher against the labels.",
            rich_help_panel=shared.DISTILLING,
        ),
    ] = FinetuneOptions.alpha,
    min_accuracy: shared.MinAccuracy = None,
    max_drop: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Highest loss of accuracy against --teacher: 0.01 or 1%.",
            rich_help_panel=shared.GATES,
        ),
    ] = None,
    arch: shared.Arch = None,
    arch_arg: shared.ArchArg = None,
    input_size: shared.InputSize = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    allow_pickle: shared.AllowPickle = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where to write. Default: <stem>.finetuned.pt, in this folder.",
            rich_help_panel=shared.OUTPUT,
        ),
    ] = None,
    report: shared.Report = None,
    plots: shared.Plots = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on where a stopped run ended.", rich_help_panel=shared.OUTPUT
        ),
    ] = False,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> Outcome:
    """Train a cut network until it is good again; the best epoch is chosen on held-out images.

    Examples:
    $ prunecli finetune resnet56.pruned.pt --data images/ --epochs 20
    $ prunecli finetune model.pruned.pt --data images/ --teacher model.pt
    $ prunecli finetune model.pruned.pt --data images/ --report training.html
    $ prunecli finetune model.pruned.pt --data images/ --resume
    $ prunecli finetune model.pt --data images/ --sparsity 0.9 --sparsity-schedule cubic
    $ prunecli finetune model.pt --data images/ --record-learnability run.parquet
    $ prunecli finetune new.pt --data images/ --curriculum run.parquet
    $ prunecli finetune new.pt --data images/ --importance-sampling run.parquet
    """
    session = start(context, json=json, quiet=quiet, verbose=verbose)
    gates = Gates(share("--min-accuracy", min_accuracy), share("--max-drop", max_drop))
    if gates.max_drop is not None and teacher is None:
        raise usage_error("--max-drop needs something to compare with", hint="add --teacher MODEL")
    if curriculum and importance_sampling:
        raise usage_error(
            "--curriculum and --importance-sampling both decide which images are trained on",
            hint="give one of the two",
        )
    if continue_record and record_learnability is None:
        raise usage_error(
            "--continue-record goes on with a record, and none is named",
            hint="add --record-learnability FILE.parquet",
        )
    if record_learnability is None:
        refuse_idle(
            context,
            ["record_mode"],
            "says how a record is made, and none is named",
            hint="add --record-learnability FILE.parquet",
        )
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    choices = FinetuneOptions(
        epochs=epochs,
        lr=lr,
        optimizer=optimizer,
        schedule=schedule,
        batch_size=batch_size,
        weight_decay=weight_decay,
        momentum=momentum,
        temperature=temperature,
        alpha=alpha,
        amp=amp,
        ema=ema,
        augment=augment,
        label_smoothing=label_smoothing,
        clip=clip,
        held_out=held_out,
        limit=limit,
        seed=seed,
        granularity=granularity,
        sparsity=share("--sparsity", sparsity),
        sparsity_schedule=sparsity_schedule,
        sparsity_every=sparsity_every,
        sparsity_until=sparsity_until,
        allocation=allocation,
        record_learnability_mode=record_mode,
        curriculum=tuple(curriculum or ()),
        importance_sampling=tuple(importance_sampling or ()),
    )
    path = session.checkpoint(model)
    from prunecli import verbs

    with session.screen.working() as progress:
        found = verbs.finetune(
            path,
            data=data,
            output=checkpoint_path(out, model=path, ending=".finetuned.pt"),
            teacher=teacher,
            options=choices,
            record=record_learnability,
            page=report,
            plots=plots,
            continue_record=continue_record,
            load=load,
            resume=resume,
            overwrite=overwrite,
            gates=gates,
            command=session.command_line,
            progress=progress,
        )
    gate = missed_gate(gates, found)
    return Outcome(
        "finetune",
        found,
        output=found.output,
        gate=gate,
        following=after_training(found, teacher=teacher),
        warnings=found.warnings,
    )
