"""`compress` on files: from wishes to one model, pruned, trained, exported, timed and judged."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.artefacts.origin import moved
from prunecli.artefacts.provenance import read
from prunecli.atomic import check_output
from prunecli.checkpoint import save
from prunecli.compression.journal import open_journal
from prunecli.compression.pace import Deadline, minutes_text
from prunecli.compression.search import best, next_strength
from prunecli.compression.wishes import judged, read_wishes
from prunecli.data import open_either
from prunecli.errors import InputError
from prunecli.html import page_of, write_page
from prunecli.lifetime.claims import claiming
from prunecli.options import CompressOptions, ExportOptions, WishOptions
from prunecli.options.declare import check_effect
from prunecli.options.typed import typed_words
from prunecli.preflight.outputs import check_page
from prunecli.progress import Progress, Step, silent
from prunecli.report import ACCURACY, AGREEMENT, CompressReport
from prunecli.verbs.compress_attempt import (
    Original,
    Run,
    first_scale,
    open_original,
    prune_to,
    scored,
    train_and_judge,
    unheard,
)
from prunecli.verbs.compress_new_head import transferred
from prunecli.verbs.export import export
from prunecli.verbs.warnings import merged
from prunecli.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from prunecli.compression.journal import Journal
    from prunecli.options import LoadOptions
    from prunecli.report import Attempt, ExportReport


@claiming
def compress(
    model: Path,
    *,
    wishes: WishOptions,
    data: str | None = None,
    output: Path | None = None,
    onnx: Path | None = None,
    options: CompressOptions | None = None,
    load: LoadOptions | None = None,
    page: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    tell: Callable[[str], None] = unheard,
    progress: Progress = silent,
) -> CompressReport:
    """Return the model that meets `wishes`, or comes nearest, written to `output` and to `onnx`.

    They default to `<stem>.compressed.pt` and `.onnx` in the current folder. What is tried is kept
    in a folder `<output stem>.search`, from where a search that was stopped goes on with `resume`;
    it is removed by nobody. `page` is an HTML file. `tell` hears what is about to be done, and how
    long that may take.
    """
    start = time.perf_counter()
    options = options or CompressOptions()
    wanted = read_wishes(wishes)
    check_effect(wishes, data=data)
    check_effect(options, data=data, max_drop=wishes.max_drop)
    target = output or Path(f"{model.stem}.compressed.pt")
    file = onnx or target.with_suffix(".onnx")
    for path in (target, file):
        check_output(path, inputs=[model], overwrite=overwrite or resume)
    if page is not None:
        check_page(page, inputs=[model, target, file], overwrite=overwrite or resume)
    if data is not None:
        open_either(data)
    run = Run(
        model=model,
        data=data,
        wishes=wanted,
        options=options,
        load=load,
        folder=target.with_suffix(".search"),
        deadline=Deadline(time.monotonic(), options.minutes),
        progress=progress,
        tell=tell,
    )
    asked = {
        "wishes": dataclasses.asdict(wishes),
        "options": {**dataclasses.asdict(options), "minutes": None},
        "data": data,
    }
    journal = open_journal(run.folder, asked, resume=resume, overwrite=overwrite)
    if options.new_head:
        run.folder.mkdir(parents=True, exist_ok=True)
        journal.write()
        run = transferred(run)
    original = open_original(run)
    journal = journal.of_model(original.opened.loaded.sha256)
    if not journal.scale:
        journal = dataclasses.replace(journal, scale=first_scale(run, original))
    tell(_plan(run, original, journal))
    run.folder.mkdir(parents=True, exist_ok=True)
    journal.write()
    journal, winner, choice = _searched(run, original, journal)
    exported = _finished(run, winner, target, file=file, command=command)
    report = _report(run, original, journal, winner, path=target, exported=exported, choice=choice)
    report = dataclasses.replace(report, seconds=round(time.perf_counter() - start, 3), page=page)
    if page is not None:
        write_page(page, page_of(report, command=command))
    return report


def _plan(run: Run, original: Original, journal: Journal) -> str:
    """Say what is going to be done, and about how long that should take."""
    options, wishes = run.options, run.wishes
    done = f", {len(journal.attempts)} of them done" if journal.attempts else ""
    if original.images is None:
        return "plan: prune, verify, export and time one model; no images, so no training"
    judged = "" if original.judge is None else f", judged by {original.judge.measure}"
    if wishes.max_drop is None:
        steps, seconds = "prune, train and judge one model", original.pace.epochs(options.epochs)
    else:
        first = options.epochs if wishes.asked else options.trial_epochs
        steps = f"up to {options.trials} models{done}"
        steps += f", the best of them trained for {counted(options.epochs, 'epoch')}"
        more = options.trial_epochs * (options.trials - 1) + first
        seconds = original.pace.epochs(more + options.epochs, share=0.6)
    bound = "" if options.minutes is None else f", bounded to {options.minutes:g} minutes"
    return f"plan: {steps}{judged}; {minutes_text(seconds)} of training{bound}"


def _searched(run: Run, original: Original, journal: Journal) -> tuple[Journal, Attempt, str]:
    """Return the model to keep, trained as long as it is to be, and why it won."""
    wishes, options = run.wishes, run.options
    full = bool(wishes.asked)
    if wishes.max_drop is None:
        journal, winner = _tried(run, original, journal, 1.0, options.epochs)
        return journal, winner, "it is what the budget asks for" + _shortened(run, winner)
    stopped = ""
    while True:
        trials = _trials(journal)
        strength = next_strength(trials, full=full)
        if strength is None or len(trials) >= options.trials:
            break
        epochs = options.epochs if full and not trials else options.trial_epochs
        need = original.pace.epochs(epochs + options.epochs, share=0.6)
        if trials and need > run.deadline.left:
            stopped = f"; the search stopped after {len(trials)} models, for time"
            break
        journal, attempt = _tried(run, original, journal, strength, epochs)
        if full and strength == 1 and attempt.ok:
            break
    journal, winner = _trained_best(run, original, journal)
    return journal, winner, _why(winner, full=full) + _shortened(run, winner) + stopped


def _trained_best(run: Run, original: Original, journal: Journal) -> tuple[Journal, Attempt]:
    """Return the smallest model that is within the drop after all of its training.

    Brief training may have looked better than it was; then the next larger one follows.
    """
    tried: list[Attempt] = []
    left = _trials(journal)
    while left:
        candidate = best(left)
        if tried and not candidate.ok:
            break
        journal, winner = _tried(run, original, journal, candidate.strength, run.options.epochs)
        if winner.ok:
            return journal, winner
        tried.append(winner)
        left = [one for one in left if one.strength < candidate.strength]
    return journal, best(tried)


def _shortened(run: Run, winner: Attempt) -> str:
    """Say that there was no time for all of the training."""
    asked = run.options.epochs
    if run.data is None or winner.epochs >= asked:
        return ""
    return f"; trained for {winner.epochs} of {counted(asked, 'epoch')}, for time"


def _why(winner: Attempt, *, full: bool) -> str:
    if not winner.ok:
        return "none was within the drop; it comes nearest"
    if full and winner.strength == 1:
        return "it is all that was wished for"
    return "the smallest that was found within the drop"


def _trials(journal: Journal) -> list[Attempt]:
    """Return the best that is known of every strength that was tried."""
    by_strength: dict[float, Attempt] = {}
    for one in journal.attempts:
        known = by_strength.get(one.strength)
        if known is None or one.epochs >= known.epochs:
            by_strength[one.strength] = one
    return list(by_strength.values())


def _tried(
    run: Run, original: Original, journal: Journal, strength: float, epochs: int
) -> tuple[Journal, Attempt]:
    """Return an attempt, made now or taken from the journal, which is written at every step.

    It is trained for fewer epochs where there is no time for all of them.
    """
    known = journal.tried_at(strength, epochs)
    if known is not None:
        return journal, known
    journal = prune_to(run, original, journal, strength)
    journal.write()
    cut = journal.cut_at(strength)
    assert cut is not None
    trains = original.images is not None
    epochs = original.pace.fitting(epochs, run.deadline.left) if trains else 0
    known = journal.tried_at(strength, epochs)
    if known is not None:
        return journal, known
    attempt = train_and_judge(run, original, cut, epochs)
    journal = dataclasses.replace(journal, attempts=(*journal.attempts, attempt))
    journal.write()
    run.tell(_told(attempt))
    return journal, attempt


def _told(attempt: Attempt) -> str:
    """Say what came of an attempt in a line."""
    parts = [f"{attempt.kept['flops']:.0%} of the FLOPs"]
    if attempt.speedup is not None:
        parts.append(f"{attempt.speedup:.2f}x as fast")
    if attempt.drop is not None:
        low, high = attempt.drop_low or 0.0, attempt.drop_high or 0.0
        parts.append(f"{100 * attempt.drop:.1f} points lost ({100 * low:.1f} to {100 * high:.1f})")
    return f"tried: {', '.join(parts)}, after {counted(attempt.epochs, 'epoch')}"


def _finished(run: Run, winner: Attempt, target: Path, *, file: Path, command: str) -> ExportReport:
    """Write the model that won where it belongs, export it and time it."""
    source = run.folder / winner.file
    checkpoint = read(source).checkpoint
    history = moved(checkpoint.metadata.get("history", []), run.folder, target.parent)
    told = {**checkpoint.metadata, "history": history}
    run.progress(Step("save", 0))
    save(dataclasses.replace(checkpoint, metadata=told), target)
    return export(
        target,
        output=file,
        against=run.model,
        data=run.data if run.options.int8 else None,
        options=ExportOptions(
            batches=(run.options.batch,),
            threads=run.options.threads,
            seed=run.options.seed,
            int8=run.options.int8,
        ),
        load=run.load,
        overwrite=True,
        command=command,
        progress=run.progress,
    )


def _report(
    run: Run,
    original: Original,
    journal: Journal,
    winner: Attempt,
    *,
    path: Path,
    exported: ExportReport,
    choice: str,
) -> CompressReport:
    (row,) = exported.benchmark or (None,)
    verified = next(
        (step.verified for step in reversed(exported.history) if step.verified is not None), None
    )
    if verified is None:
        raise InputError(
            "the model that was written says nothing of its proof",
            code="NO_PROOF",
            where=str(path),
        )
    before, after, drop = scored(run, original, path, exported)
    if row is not None:
        before = dataclasses.replace(before, latency_ms=row.dense_ms)
        after = dataclasses.replace(after, latency_ms=row.slim_ms)
    met = tuple(judged(run.wishes, before, after, row, None if drop is None else drop[0]))
    return CompressReport(
        output=path,
        onnx=exported.output,
        before=before,
        after=after,
        met=met,
        tried=journal.attempts,
        seconds=0.0,
        architecture=original.opened.architecture,
        verified=verified,
        parity=exported.parity,
        benchmark=exported.benchmark,
        choice=choice,
        commands=_commands(run, original, winner, path, exported.output),
        drop=drop,
        measure=ACCURACY if original.judge is None else original.judge.measure,
        chosen_on=original.chosen_on,
        reported_on=original.reported_on,
        warnings=merged(original.warnings, winner.warnings, exported.warnings),
    )


def _commands(
    run: Run, original: Original, winner: Attempt, output: Path, onnx: Path
) -> tuple[str, ...]:
    """Return the commands that would do by hand what made the model that won."""
    read = () if run.load is None else typed_words(run.load)
    data = () if run.data is None else ("--data", run.data)
    seed = ("--seed", str(run.options.seed)) if run.options.seed else ()
    looked_at = () if original.pruned_on is None else ("--data", original.pruned_on)
    cut = (*shlex.split(winner.budget), *looked_at, *seed, *read)
    clock = ("--threads", str(run.options.threads)) if run.options.threads else ()
    if run.wishes.timed:
        cut += ("--latency-batch", str(run.options.batch), *clock)
    pruned = f"{output.stem}.pruned.pt" if winner.epochs else str(output)
    lines: list[tuple[str, ...]] = []
    if run.pretrained is not None:
        limit = () if run.options.limit is None else ("--limit", str(run.options.limit))
        first = ("--new-head", "--epochs", str(run.head_epochs), *limit, *seed)
        own = () if run.load_before is None else typed_words(run.load_before)
        lines.append(("finetune", str(run.pretrained), *data, *first, *own, "-o", str(run.model)))
    lines += [("prune", str(run.model), *cut, "-o", pruned)]
    if winner.epochs:
        limit = () if run.options.limit is None else ("--limit", str(run.options.limit))
        taught = ("--epochs", str(winner.epochs), "--teacher", str(run.model))
        follows = original.judge is not None and original.judge.measure == AGREEMENT
        loss = ("--loss", "outputs") if follows else ()
        words = (*data, *taught, *loss, *limit, *seed, *read)
        lines.append(("finetune", pruned, *words, "-o", str(output)))
    timed = ("--against", str(run.model), "--batch", str(run.options.batch), *clock)
    precision = ("--int8", *data) if run.options.int8 else ()
    lines.append(("export", str(output), "--onnx", str(onnx), *precision, *timed, *read))
    return tuple(shlex.join(("prunecli", *words)) for words in lines)
