"""`prunecli analyze`: how far a model can be pruned, what a data set is like."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from prunecli.files import is_model_folder, nearest_path
from prunecli.options import AnalyzeOptions, ComplexityOptions, LoadOptions
from prunecli.options.shared import DATA
from prunecli.preflight.analysis import check_analysis
from prunecli.preflight.files import check_inputs

from . import options as shared
from .following import after_analysis
from .outcome import Outcome
from .parsing import usage_error
from .session import Session
from .signature import command

BUILT_IN_DATA = "digits"
DATA_FILES = (".csv", ".tsv", ".txt", ".npz")


@dataclass(frozen=True)
class Subject:
    """The model and the data, where PATH is the other of the two."""

    data: str | None = shared.data(None)
    model: Path | None = shared.model(
        help="Checkpoint, if PATH is the data.", panel=DATA, basic=True
    )


@partial(command, judged=False)
def analyze(
    session: Session,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="Checkpoint, folder of images, .csv, .npz, or 'digits' (default: the checkpoint "
            "on piped stdin, else the newest output in this folder).",
        ),
    ] = None,
    *,
    subject: Subject,
    options: AnalyzeOptions,
    pages: shared.Pages,
    load: LoadOptions,
) -> Outcome:
    """Show how far a model can be pruned, layer by layer, and how hard a data set is.

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
    checkpoint, images = _sort_out(
        session,
        path,
        model=subject.model,
        data=subject.data,
        records_alone=bool(options.learnability),
    )
    known = {"model": checkpoint, "data": images}
    options, load = session.effective(options, **known), session.effective(load, **known)
    pages = session.effective(pages, **known)
    # How small a set could be is asked of the whole of it.
    whole = options.complexity.reduce or options.complexity.subset is not None
    limit = None if whole else ComplexityOptions.limit
    complexity = dataclasses.replace(
        options.complexity, limit=options.limit if session.is_said("limit") else limit
    )
    check_analysis(options, images=images is not None)
    check_inputs(checkpoint, data=images)
    pages.check("analyze", inputs=(checkpoint, images, *options.learnability))
    verbs = session.library()

    with session.screen.working() as progress:
        found = verbs.analyze(
            model=checkpoint,
            data=images,
            options=dataclasses.replace(options, complexity=complexity),
            load=load,
            **pages.arguments,
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
            hint=f"{nearest_path(path)}give a file or a folder that is there",
        )
    is_folder = path.is_dir() and not is_model_folder(path)
    is_data = is_folder or str(path) == BUILT_IN_DATA or path.suffix.lower() in DATA_FILES
    if (data if is_data else model) is not None:
        kind, flag = ("data", "--data") if is_data else ("a model", "--model")
        raise usage_error(
            f"{path} is {kind}, and {flag} names another", hint=f"leave one of the two out: {flag}"
        )
    if is_data:
        return model, str(path)
    return session.checkpoint(path), data
