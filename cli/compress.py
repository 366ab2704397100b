"""`prunecli compress`: from wishes to a smaller, faster, verified model in one command."""

from dataclasses import dataclass
from pathlib import Path

from prunecli.options import CompressOptions, LoadOptions, WishOptions
from prunecli.options.declare import is_given
from prunecli.options.shared import OUTPUT
from prunecli.preflight.files import check_inputs
from prunecli.preflight.outputs import check_page, check_written, room_for

from . import options as shared
from .outcome import Outcome
from .parsing import checkpoint_path
from .session import Session
from .signature import command


@dataclass(frozen=True)
class Place:
    """Where `compress` reads images from, and where it writes."""

    data: str | None = shared.data(None)
    out: Path | None = shared.out(
        help="Output: .pt or .safetensors (default: <stem>.compressed.pt, in this folder)."
    )
    onnx: Path | None = shared.output(
        None,
        "ONNX file (default: <output stem>.onnx, beside the output).",
        metavar="PATH",
        basic=True,
        trusts=is_given,
        flag_only=True,
    )
    resume: bool = shared.resume(panel=OUTPUT)


@dataclass(frozen=True)
class Page:
    """What is written beside the result, for people, and whether files may be replaced."""

    report: Path | None = shared.output(
        None,
        "Write a report with all figures and tables: a self-contained HTML file that works "
        "offline.",
        metavar="FILE.html",
        basic=True,
        trusts=is_given,
    )
    overwrite: bool = shared.output(
        False, "Overwrite existing outputs.", basic=True, trusts=is_given, flag_only=True
    )


@command
def compress(
    session: Session,
    model: shared.Model = None,
    *,
    wishes: WishOptions,
    place: Place,
    options: CompressOptions,
    page: Page,
    load: LoadOptions,
) -> Outcome:
    """Make a model smaller and faster in one go: prune, fine-tune, export, verify and time it.

    With --max-drop alone, the smallest model within it is looked for.
    If a wish cannot be met, the nearest model is written (exit code 1).

    Examples:
    $ prunecli compress model.pt --data images/ --speedup 2 --max-drop 1%
    $ prunecli compress model.pt --data images/ --max-drop 1% --report compressed.html
    $ prunecli compress model.pt --data images/ --flops 0.5 --epochs 10
    $ prunecli compress model.pt --data images/ --size 4MB --minutes 30
    $ prunecli compress pretrained.pt --data flowers/ --new-head --flops 0.5 --epochs 10
    $ prunecli compress model.pt --data images/ --size 1MB --int8
    $ prunecli compress model.pt --speedup 1.5
    $ prunecli compress model.pt --data images/ --max-drop 1% --resume
    """
    from prunecli.compression.wishes import read_wishes

    path = session.checkpoint(model)
    output = checkpoint_path(place.out, model=path, ending=".compressed.pt")
    target = output or Path(f"{path.stem}.compressed.pt")
    fine = page.overwrite or place.resume
    read_wishes(wishes)
    check_inputs(path, data=place.data)
    for written in (target, place.onnx or target.with_suffix(".onnx")):
        check_written(written, inputs=(path,), overwrite=fine, needed=room_for(path))
    if page.report is not None:
        check_page(page.report, inputs=(path, target), overwrite=fine)
    verbs = session.library()
    from prunecli.report import NO_GATES, missed_gate

    with session.screen.working() as progress:
        found = verbs.compress(
            path,
            wishes=wishes,
            data=place.data,
            output=output,
            onnx=place.onnx,
            options=options,
            load=load,
            page=page.report,
            resume=place.resume,
            overwrite=page.overwrite,
            command=session.command_line,
            tell=session.screen.note,
            progress=progress,
        )
    return Outcome(
        "compress",
        found,
        output=found.output,
        gate=missed_gate(NO_GATES, found),
        warnings=found.warnings,
    )
