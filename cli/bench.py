"""`prunecli bench`: how long models take, in turns."""

from dataclasses import dataclass

from prunecli.options import BenchOptions, LoadOptions
from prunecli.preflight.files import check_inputs

from . import options as shared
from .compare import Models
from .outcome import Outcome
from .session import Session
from .signature import command


@dataclass(frozen=True)
class Speed:
    """What every model but the first has to keep."""

    fail_if_slower: float | None = shared.gate(
        None,
        "Exit with 1 if a model is slower than the first by more than this (0.02 or 2%), with its "
        "whole 95 % interval.",
        metavar="FRACTION",
        form="share",
        basic=True,
    )


@command
def bench(
    session: Session,
    models: Models,
    *,
    options: BenchOptions,
    speed: Speed,
    load: LoadOptions,
) -> Outcome:
    """Time models in turns, as ONNX: percentiles, ratios to the first, memory, energy.

    Examples:
    $ prunecli bench dense.pt slim.pt slim.onnx
    $ prunecli bench old.onnx new.onnx --batch 1,8,32 --fail-if-slower 2%
    $ prunecli bench a.onnx b.onnx --device cpu,cuda --json
    """
    check_inputs(*models)
    verbs = session.library()
    from prunecli.report import Gates, missed_gate

    with session.screen.working() as progress:
        report = verbs.bench(models, options=options, load=load, progress=progress)
    gates = Gates(max_slowdown=speed.fail_if_slower)
    return Outcome("bench", report, gate=missed_gate(gates, report), warnings=report.warnings)
