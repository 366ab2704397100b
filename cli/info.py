"""`prunecli info`: what a model file is, without loading it."""

from functools import partial

from prunecli.options import InfoOptions, LoadOptions

from . import options as shared
from .outcome import Outcome
from .session import Session
from .signature import command


@partial(command, works=False)
def info(
    session: Session,
    model: shared.Model = None,
    *,
    options: InfoOptions,
    load: LoadOptions,
) -> Outcome:
    """Show what a model file is: architecture, classes, input, costs, history. Changes nothing.

    Examples:
    $ prunecli info resnet56.th
    $ prunecli info model.onnx --json
    $ prunecli info model.pt --build
    """
    path = session.checkpoint(model, exported=True)
    from prunecli import verbs

    with session.screen.working() as progress:
        report = verbs.info(path, options=options, load=load, progress=progress)
    return Outcome("info", report, brief=report.sha256, warnings=report.warnings)
