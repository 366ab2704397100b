"""Gates: what a user demands of a result, and the one place that judges whether it is met."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

from prunecli.errors import GateError
from prunecli.report.comparison import BenchReport, CompareReport
from prunecli.report.compressed import CompressReport, Wish
from prunecli.report.cuts import LatencyReport, PruneReport
from prunecli.report.measured import ACCURACY, AGREEMENT, Evaluation, mean_agreement
from prunecli.report.runs import ExportReport, FinetuneReport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prunecli.report.timings import TimingRow

KEPT = "the output and the figures are kept; only the gate was not met"


@dataclass(frozen=True)
class Gates:
    """What is demanded; None demands nothing.

    `min_accuracy` is the lowest accuracy, `max_drop` the highest loss of accuracy against a teacher
    or another model, `min_speedup` the lowest speed-up on every device and batch size. A budget in
    milliseconds is a gate of its own. `min_agreement` is the lowest agreement with another model;
    where no label is looked at, `max_drop` is how much of that may be missing. `max_slowdown` is
    how much longer than the first model any other may take, as a share: only what is beyond it with
    its whole interval is too slow.
    """

    min_accuracy: float | None = None
    max_drop: float | None = None
    min_speedup: float | None = None
    max_slowdown: float | None = None
    min_agreement: float | None = None


NO_GATES = Gates()


@dataclass(frozen=True)
class Figures:
    """What of a report gates look at; None is what it does not speak of.

    `others` are the accuracies of further models by name, None where one has none.

    `reference` is the accuracy of what the result is compared with, and `measure` what both are
    called; `agreement` is that with another model, or with the same one in float, `speedups` are
    the factors by where they were measured.
    """

    accuracy: float | None = None
    reference: float | None = None
    measure: str = ACCURACY
    agreement: float | None = None
    others: Mapping[str, float | None] | None = None
    speedups: Mapping[str, float] | None = None
    latency: LatencyReport | None = None
    timings: Sequence[TimingRow] | None = None
    wishes: tuple[Wish, ...] = ()
    unquantised: bool = False


def missed_gate(gates: Gates, report: Any, *, reference: float | None = None) -> GateError | None:
    """Return the first gate that a report does not meet; None where it meets all.

    `reference` is the accuracy to compare with where the report holds none of its own.
    """
    figures = figures_of(report)
    against = figures.reference if reference is None else reference
    accuracy, errors = figures.accuracy, list[GateError | None]()
    if accuracy is not None:
        errors.append(_accuracy_error(accuracy, gates.min_accuracy, figures.measure))
        errors.append(_agreement_error(figures.agreement, gates.min_agreement))
    if accuracy is not None and gates.max_drop is not None:
        errors.append(_drop_error(accuracy, against, gates.max_drop, measure=figures.measure))
    if accuracy is None and figures.agreement is not None and gates.max_drop is not None:
        errors.append(_conversion_error(figures.agreement, gates.max_drop))
    if figures.unquantised:
        errors.append(_error("--max-drop", "no layer could be put in INT8 within it"))
    errors += [
        error
        for name, own in (figures.others or {}).items()
        for error in _other_errors(name, own, gates, against)
    ]
    if figures.speedups is not None and gates.min_speedup is not None:
        errors.append(_speedup_error(figures.speedups, gates.min_speedup))
    if figures.timings is not None and gates.max_slowdown is not None:
        errors.append(_slowdown_error(figures.timings, gates.max_slowdown))
    errors.append(_latency_error(figures.latency))
    errors.extend(_wish_error(wish) for wish in figures.wishes)
    return next((error for error in errors if error is not None), None)


def gates_text(gates: Gates, report: Any) -> str:
    """Say whether the stated gates are met by a report; nothing where none was stated."""
    if gates == NO_GATES:
        return ""
    missed = missed_gate(gates, report)
    return "met" if missed is None else f"not met: {missed.message}"


@singledispatch
def figures_of(report: Any) -> Figures:
    """Return what gates look at in a report."""
    raise NotImplementedError(type(report).__name__)


@figures_of.register
def _(report: PruneReport) -> Figures:
    return Figures(latency=report.latency)


@figures_of.register
def _(report: Evaluation) -> Figures:
    own = report.accuracy
    agreement = mean_agreement(report.outputs) if report.outputs else None
    alone = report.measure == AGREEMENT
    return Figures(own, 1.0 if alone else None, report.measure, agreement)


@figures_of.register
def _(report: CompareReport) -> Figures:
    first, *others = report.models
    return Figures(
        reference=None if first.scores is None else first.scores.accuracy,
        others={one.name: None if one.scores is None else one.scores.accuracy for one in others},
    )


@figures_of.register
def _(report: BenchReport) -> Figures:
    return Figures(timings=report.timings)


@figures_of.register
def _(report: FinetuneReport) -> Figures:
    own, measure = report.accuracy.after, report.accuracy.measure
    alone = measure == AGREEMENT  # with itself the teacher agrees
    return Figures(own, 1.0 if alone else report.teacher, measure, own if alone else None)


@figures_of.register
def _(report: ExportReport) -> Figures:
    accuracy = None if report.conversion is None else report.conversion.accuracy
    return Figures(
        accuracy=None if accuracy is None else accuracy.after,
        reference=None if accuracy is None else accuracy.before,
        agreement=None
        if accuracy is not None or report.conversion is None
        else report.conversion.agreement,
        unquantised=report.conversion is not None and report.conversion.is_float,
        speedups={
            f"{row.device} at batch {row.batch}": row.speedup
            for row in report.benchmark
            if row.speedup is not None
        },
    )


@figures_of.register
def _(report: CompressReport) -> Figures:
    return Figures(wishes=report.met)


def _wish_error(wish: Wish) -> GateError | None:
    if wish.ok:
        return None
    return _error(
        f"--{wish.wish.replace('_', '-')}",
        f"{wish.asked_text} was wished for, and the nearest that was found is {wish.got_text}",
        hint="the nearest model is written; more --epochs, or a smaller wish, may be met",
    )


def _accuracy_error(actual: float, required: float | None, measure: str) -> GateError | None:
    if required is not None and measure == AGREEMENT:
        return _error(
            "--min-accuracy",
            "no accuracy was measured: no label was looked at",
            hint="demand an agreement: --min-agreement",
        )
    return _below("--min-accuracy", measure, actual, required)


def _agreement_error(actual: float | None, required: float | None) -> GateError | None:
    if required is not None and actual is None:
        return _error(
            "--min-agreement",
            "no agreement was measured: there is no model to compare with",
            hint="name it: --against dense.pt",
        )
    return None if actual is None else _below("--min-agreement", AGREEMENT, actual, required)


def _drop_error(
    accuracy: float, against: float | None, allowed: float, *, of: str = "", measure: str = ACCURACY
) -> GateError | None:
    """Return the error of a drop that is too large, or that nothing was there to tell from."""
    if against is None:
        return _error(
            "--max-drop",
            "no drop in accuracy was measured: there is no model to compare with",
            hint="name a teacher, or a model to compare with",
        )
    actual = against - accuracy
    if actual <= allowed:
        return None
    return _error(
        "--max-drop",
        f"the drop in {measure}{of} is {actual:.4g}, and --max-drop allows {allowed:.4g}",
    )


def _conversion_error(agreement: float, allowed: float) -> GateError | None:
    """Return the error of too many images that get another class than in float."""
    if 1 - agreement <= allowed:
        return None
    return _error(
        "--max-drop",
        f"{1 - agreement:.4g} of the images get another class than in float, and --max-drop "
        f"allows {allowed:.4g}",
    )


def _other_errors(
    name: str, accuracy: float | None, gates: Gates, against: float | None
) -> Iterator[GateError | None]:
    """Yield the errors of one of several models; one without an accuracy meets no gate on it."""
    if gates.min_accuracy is None and gates.max_drop is None:
        return
    if accuracy is None:
        flag = "--min-accuracy" if gates.max_drop is None else "--max-drop"
        yield _error(flag, f"no accuracy of {name} was measured")
        return
    yield _below("--min-accuracy", f"the accuracy of {name}", accuracy, gates.min_accuracy)
    if gates.max_drop is not None:
        yield _drop_error(accuracy, against, gates.max_drop, of=f" of {name}")


def _speedup_error(speedups: Mapping[str, float], required: float) -> GateError | None:
    """Return the error of a speed-up that is too small, or that was not measured at all."""
    if not speedups:
        return _error(
            "--min-speedup",
            "no speed-up was measured: there is no dense model to compare with",
            hint="name it: --against dense.pt",
        )
    errors = (
        _below("--min-speedup", f"the speed-up on {where}", actual, required)
        for where, actual in speedups.items()
    )
    return next((error for error in errors if error is not None), None)


def _slowdown_error(rows: Sequence[TimingRow], allowed: float) -> GateError | None:
    """Return the error of models that are slower than the first beyond any doubt of the timing."""
    timed = [(row, one) for row in rows for one in row.models if one.ratio_low is not None]
    if not timed:
        return _error(
            "--fail-if-slower",
            "no ratio of times was measured: there is no other model",
            hint="name two models or more; the first is what the others are compared with",
        )
    slower = [
        f"{one.model} takes {one.ratio:.3f} times as long as {row.models[0].model} on {row.where} "
        f"(95 % interval {one.ratio_low:.3f} to {one.ratio_high:.3f})"
        for row, one in timed
        if one.ratio_low is not None and one.ratio_low > 1 + allowed
    ]
    if not slower:
        return None
    return _error(
        "--fail-if-slower",
        f"{'; '.join(slower)}; {100 * allowed:g} % slower is allowed",
        hint="the figures are kept; measure again on an idle machine if other programs ran",
    )


def _latency_error(latency: LatencyReport | None) -> GateError | None:
    """Return the error of a cut network that is too slow beyond any doubt of the timing."""
    if latency is None or latency.met is not False:
        return None
    assert latency.measured_kept is not None
    assert latency.asked is not None
    tighter = latency.asked * latency.kept / latency.measured_kept
    return _error(
        "--latency",
        f"the pruned model takes {latency.measured_kept:.3f} of the dense one's time, and "
        f"--latency asks for {latency.asked:.3f} or less",
        hint=f"the output is written; --latency {tighter:.2f} makes up for what was predicted "
        "wrong, and a quiet machine predicts better",
    )


def _below(flag: str, what: str, actual: float, required: float | None) -> GateError | None:
    if required is None or actual >= required:
        return None
    return _error(flag, f"{what} is {actual:.4g}, and {flag} asks for {required:.4g} or more")


def _error(flag: str, message: str, *, hint: str = KEPT) -> GateError:
    return GateError(message, code="GATE_NOT_MET", where=flag, hint=hint)
