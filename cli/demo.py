"""`prunecli demo`: the whole workflow on real digits, each step as one would type it."""

import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.errors import InputError
from prunecli.options.declare import is_given

from .find_model import FOLDER, record
from .options import output
from .outcome import Outcome
from .render import Screen, interrupted
from .reports import DemoReport, DemoResult, DemoStep
from .session import Session
from .signature import command

if TYPE_CHECKING:
    from prunecli.report import CompareReport, CompressReport

MODEL = "digits_wide_resnet.safetensors"
SLIM, FILE = "slim.pt", "slim.onnx"
STEPS = (
    f"analyze {MODEL} --data digits",
    f"compress {MODEL} --data digits --flops 0.5 --epochs 5 --threads 1 -o {SLIM}",
    f"compare {MODEL} {FILE} --data digits --no-latency",
)
WIDTH = 80  # columns of a terminal that has not been widened
WRITING = ("compress",)


@dataclass(frozen=True)
class Place:
    """Where the demo works."""

    out: Path = output(
        Path("prunecli-demo"),
        "Folder to work in.",
        metavar="DIR",
        flags="--out -o",
        basic=True,
        trusts=is_given,
        flag_only=True,
    )


@command
def demo(session: Session, *, place: Place) -> Outcome:
    """Analyze, compress and compare a small network for handwritten digits.

    Examples:
    $ prunecli demo
    $ prunecli demo --out /tmp/demo
    """
    screen, out = session.screen, place.out
    began = time.perf_counter()
    is_again = (out / FOLDER).exists()
    prepare_folder(out)
    screen.note(f"working in {out}/ on {MODEL},\na residual network for handwritten digits")
    with chdir(out), _one_thread():
        done = [_run(session, screen, _typed(step, again=is_again)) for step in STEPS]
        _, compressed, compared = (report for _, report in done)
        result = _result(compressed, compared)
    steps = tuple(step for step, _ in done)
    report = DemoReport(out, steps, result, time.perf_counter() - began)
    return Outcome("demo", report, output=out)


def prepare_folder(folder: Path) -> None:
    """Make the folder and put the sample model into it."""
    source = resources.files("prunecli_sample_models") / MODEL
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with resources.as_file(source) as path:
            shutil.copyfile(path, folder / MODEL)
    except OSError as error:
        raise InputError(
            f"the folder of the demo cannot be prepared: {error.strerror}",
            code="UNWRITABLE_OUTPUT",
            where=str(folder),
            hint="choose another folder: prunecli demo --out DIR",
        ) from error


def _result(compressed: "CompressReport", compared: "CompareReport") -> DemoResult:
    """Put together what the steps came to, in the folder that they worked in."""
    from prunecli.report import AccuracyChange

    before, after = (model.scores for model in compared.models)
    assert before is not None  # the steps name images with labels
    assert after is not None
    return DemoResult(
        model=Path(MODEL).stem,
        before=compressed.before,
        after=compressed.after,
        file_bytes=(Path(MODEL).stat().st_size, Path(SLIM).stat().st_size),
        benchmark=compressed.benchmark,
        accuracy=AccuracyChange(before.accuracy, after.accuracy, compared.split),
        images=compared.images,
        verified=compressed.verified,
    )


def _typed(step: str, *, again: bool) -> str:
    """Return the command as one would type it, over the files of an earlier demo too."""
    return f"{step} --overwrite" if again and step.startswith(WRITING) else step


def _shown(text: str) -> str:
    """Return the command behind its prompt, continued before an option as a shell allows it."""
    lines = ["$ prunecli"]
    for part in re.split(r" (?=-)", text):
        if len(lines[-1]) + len(part) + 1 > WIDTH - len(" \\"):
            lines.append("   ")
        lines[-1] += f" {part}"
    return " \\\n".join(lines)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Take one thread: on images of 16 by 16, several mostly wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(session: Session, screen: Screen, text: str) -> tuple[DemoStep, Any]:
    """Run one command in this process, as if it had been typed, and show what it shows."""
    from prunecli.report import to_json

    words = shlex.split(text)
    screen.heading(f"\n{_shown(text)}")
    began = time.perf_counter()
    inner = Screen(quiet=not screen.talks, verbose=screen.verbose)
    assert session.context is not None
    outcome = session.context.find_root().command.main(
        words, prog_name="prunecli", standalone_mode=False, obj=Session(tuple(words), inner)
    )
    if not isinstance(outcome, Outcome):  # the parser turns Ctrl-C into an exit code
        raise interrupted()
    if outcome.output is not None:
        record(outcome.output, command=outcome.command)
    inner.show_beside(outcome)
    seconds = time.perf_counter() - began
    return DemoStep(f"prunecli {text}", seconds, to_json(outcome.report)), outcome.report
