"""`prunecli analyze`: what a model can lose, what a data set is like."""

from pathlib import Path
from typing import Annotated

import typer

from prunecli.options import AnalyzeOptions, ComplexityOptions

from . import options as shared
from .following import after_analysis
from .outcome import Outcome
from .parsing import byte_count, count_or_all, load_options, names, refuse_idle, usage_error
from .session import Session, start

BUILT_IN_DATA = "digits"
DATA_FILES = (".csv", ".tsv", ".txt", ".npz")
DATA_SET = "A data set"
OF_DATA = (
    "embedding", "epochs", "samples", "neighbours", "volume", "variant", "repeats", "memory",
    "survey", "device", "reduce", "tolerance", "write_subset", "subset_rule", "per_class",
)  # fmt: skip
OF_MODELS = ("oracle", "signals", "importance", "dead_threshold", "aggregate", "signal")


def analyze(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="A checkpoint, a folder of images, a .csv or .npz, or 'digits'. Without it: the "
            "checkpoint from piped stdin, else this folder's newest output.",
        ),
    ] = None,
    *,
    data: shared.Data = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL", show_default=False, help="The checkpoint, where PATH is the data."
        ),
    ] = None,
    signal: shared.Signal = AnalyzeOptions.signal,
    signals: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            show_default=False,
            help="With --oracle: the signals to compare. Without: some well-known ones.",
        ),
    ] = None,
    oracle: Annotated[
        bool,
        typer.Option(
            "--oracle",
            help="With data: the loss change of removing each channel alone, and how signals rank "
            "the channels beside it.",
        ),
    ] = AnalyzeOptions.oracle,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance",
            help="With data: how important each layer is by three measures, and how much they "
            "agree.",
        ),
    ] = AnalyzeOptions.importance,
    dead_threshold: shared.DeadThreshold = AnalyzeOptions.dead_threshold,
    aggregate: shared.Aggregate = AnalyzeOptions.aggregate,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity/--no-sensitivity",
            help="With data: loss and accuracy after cutting 25, 50, 75 % of each group alone.",
        ),
    ] = AnalyzeOptions.sensitivity,
    limit: shared.Limit = None,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="What the images are seen through: raw, pca-N, tsne, autoencoder, model, or a "
            "chain (autoencoder+tsne). Default: pca-5.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.embedding,
    epochs: Annotated[
        int,
        typer.Option(
            "--embedding-epochs",
            min=1,
            metavar="N",
            help="Epochs of the autoencoder (the paper: 100).",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.epochs,
    learnability: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Compare records of 'finetune --record-learnability'; repeatable.",
            rich_help_panel=DATA_SET,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(
            min=1, metavar="M", help="Images drawn of every class.", rich_help_panel=DATA_SET
        ),
    ] = ComplexityOptions.samples,
    neighbours: Annotated[
        int,
        typer.Option(
            min=1, metavar="K", help="Neighbours of every image.", rich_help_panel=DATA_SET
        ),
    ] = ComplexityOptions.neighbours,
    volume: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="box (as the reference), or none: plain votes.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.volume,
    variant: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="csg, or auls: the area under the same spectrum.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.variant,
    repeats: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Draws that are averaged.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.repeats,
    memory: Annotated[
        str,
        typer.Option(
            metavar="BYTES",
            help="Memory for temporary arrays, such as 512MB.",
            rich_help_panel=DATA_SET,
        ),
    ] = "1GB",
    survey: Annotated[
        str,
        typer.Option(
            metavar="N|all",
            help="Images opened to find broken, odd, equal and nearly equal ones.",
            rich_help_panel=DATA_SET,
        ),
    ] = str(ComplexityOptions.survey),
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where neighbours are looked for: auto (a GPU if there is one), cpu, cuda. The "
            "same are found on all.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.device,
    reduce: Annotated[
        bool,
        typer.Option(
            "--reduce",
            help="How small the data set could be: complexity against images per class.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.reduce,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="With --reduce: how far the score may move.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.tolerance,
    write_subset: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|LIST.txt",
            show_default=False,
            help="Write a class-balanced part: a folder of hard links, or a list.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.subset,
    subset_rule: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How its images are chosen: random, confusion, or hardest (the easiest by "
            "--learnability are dropped).",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.subset_rule,
    per_class: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default=False,
            help="Its images of every class. Default: what --reduce finds.",
            rich_help_panel=DATA_SET,
        ),
    ] = ComplexityOptions.per_class,
    seed: shared.Seed = AnalyzeOptions.seed,
    arch: shared.Arch = None,
    arch_arg: shared.ArchArg = None,
    input_size: shared.InputSize = None,
    mean: shared.Mean = None,
    std: shared.Std = None,
    allow_pickle: shared.AllowPickle = False,
    plots: shared.Plots = None,
    report: shared.Report = None,
    overwrite: shared.Overwrite = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
    verbose: shared.Verbose = False,
) -> Outcome:
    """Show what a model can lose, how hard a data set is, or both.

    Examples:
    $ prunecli analyze resnet56.th
    $ prunecli analyze images/
    $ prunecli analyze images/ --report report.html
    $ prunecli analyze resnet56.th --data images/ --report report.html
    $ prunecli analyze images/ --learnability a.parquet --learnability b.parquet
    $ prunecli analyze images/ --reduce --write-subset smaller/
    $ prunecli analyze d/ --learnability a.parquet --subset-rule hardest --reduce --write-subset b/
    $ prunecli analyze images/ --embedding model --model resnet56.th
    $ prunecli analyze resnet20.th --data images/ --oracle --signals l1,taylor,random
    $ prunecli analyze resnet56.th --data images/ --importance --no-sensitivity
    $ prunecli analyze resnet20.th --data images/ --oracle --plots pictures/
    """
    session = start(context, json=json, quiet=quiet, verbose=verbose)
    load = load_options(
        arch=arch,
        arch_arg=arch_arg,
        input_size=input_size,
        mean=mean,
        std=std,
        allow_pickle=allow_pickle,
    )
    checkpoint, images = _sort_out(
        session, path, model=model, data=data, records_alone=bool(learnability)
    )
    if signals is not None and not oracle:
        raise usage_error("--signals are compared with the oracle", hint="add --oracle")
    _refuse_idle(context, checkpoint, images)
    choices = AnalyzeOptions(
        signal=signal,
        signals=() if signals is None else names("--signals", signals),
        oracle=oracle,
        aggregate=aggregate,
        seed=seed,
        limit=limit or AnalyzeOptions.limit,
        sensitivity=sensitivity,
        importance=importance,
        dead_threshold=dead_threshold,
        learnability=tuple(learnability or ()),
        complexity=ComplexityOptions(
            embedding=embedding,
            epochs=epochs,
            samples=samples,
            neighbours=neighbours,
            volume=volume,
            variant=variant,
            repeats=repeats,
            # How small a set could be is asked of the whole of it.
            limit=limit or (None if reduce or write_subset else ComplexityOptions.limit),
            memory=byte_count("--memory", memory),
            survey=count_or_all("--survey", survey),
            device=device,
            reduce=reduce,
            tolerance=tolerance,
            subset=write_subset,
            subset_rule=subset_rule,
            per_class=per_class,
        ),
    )
    from prunecli import verbs

    with session.screen.working() as progress:
        found = verbs.analyze(
            model=checkpoint,
            data=images,
            options=choices,
            load=load,
            plots=plots,
            page=report,
            overwrite=overwrite,
            command=session.command_line,
            progress=progress,
        )
    subset = None if found.dataset is None else found.dataset.subset
    brief = None if subset is None else str(subset.path)
    return Outcome(
        "analyze",
        found,
        brief=brief,
        following=after_analysis(found.model, model=checkpoint),
        warnings=found.warnings,
    )


def _refuse_idle(context: typer.Context, model: Path | None, data: str | None) -> None:
    """Raise the usage error of an option that nothing here would follow."""
    options = context.params
    if data is None:
        refuse_idle(
            context, OF_DATA, "is about a data set, and none is named", hint="add --data images/"
        )
    if model is None:
        refuse_idle(
            context, OF_MODELS, "is about a model, and none is named", hint="add --model FILE"
        )
    if not options["reduce"]:
        refuse_idle(context, ["tolerance"], "is that of --reduce", hint="add --reduce")
    if options["write_subset"] is None:
        refuse_idle(
            context,
            ["subset_rule", "per_class"],
            "says what --write-subset writes",
            hint="add --write-subset smaller/",
        )
    if "autoencoder" not in (options["embedding"] or ""):
        refuse_idle(
            context,
            ["epochs"],
            "trains an autoencoder, and none is asked for",
            hint="add --embedding autoencoder",
        )


def _sort_out(
    session: Session,
    path: Path | None,
    *,
    model: Path | None,
    data: str | None,
    records_alone: bool,
) -> tuple[Path | None, str | None]:
    """Return the model and the data that `path` and the two options name between them."""
    if path is None:
        needs_model = model is None and data is None and not records_alone
        return (session.checkpoint(None) if needs_model else model), data
    if not (path.suffix or path.exists() or str(path) == BUILT_IN_DATA):
        raise usage_error(
            f"there is neither a model nor a data set called {path}",
            hint="give a file or a folder that is there",
        )
    is_data = path.is_dir() or str(path) == BUILT_IN_DATA or path.suffix.lower() in DATA_FILES
    if (data if is_data else model) is not None:
        kind, flag = ("data", "--data") if is_data else ("a model", "--model")
        raise usage_error(
            f"{path} is {kind}, and {flag} names another", hint=f"leave one of the two out: {flag}"
        )
    if is_data:
        return model, str(path)
    return session.checkpoint(path), data
