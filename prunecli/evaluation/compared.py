"""Models side by side as rows of text, one column each: what a terminal and a page show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunecli.budget import format_bytes, format_quantity
from prunecli.cost.kinds import cost_label
from prunecli.wording import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prunecli.report import CompareReport, ModelTiming, TimingRow

Row = tuple[str, tuple[str, ...]]
"""What a row is about, and the text of every model; empty where it has nothing to say."""


def compared_rows(report: CompareReport) -> list[Row]:
    """Return all figures of a comparison; rows in which no model says anything are left out."""
    rows = [*_described(report), *_costs(report), *_scores(report), *_agreement(report)]
    names = [model.name for model in report.models]
    rows += timing_rows(report.latency, names)
    return [(label, cells) for label, cells in rows if any(cells)]


def preparations(report: CompareReport) -> dict[str, str]:
    """Say in one line how images were brought to the models, or in one line for each of them."""
    known = {one.name: one.preparation for one in report.models if one.preparation is not None}
    if len({*known.values()}) == 1 and len(known) == len(report.models):
        return {"input": next(iter(known.values())).statement}
    return {f"input of {name}": prepared.statement for name, prepared in known.items()}


def timing_rows(timings: Sequence[TimingRow], names: Sequence[str]) -> list[Row]:
    """Return the times of every device and batch size, and their ratios to the first model's."""
    rows: list[Row] = []
    for row in timings:
        found = {timing.model: timing for timing in row.models}
        each = [found.get(name) for name in names]
        rows.append((f"ms, {row.where}", _cells(each, lambda one: f"{one.median:.3g}")))
        rows.append(("  to p90, p99", _cells(each, _slow)))
        rows.append(("  of the first", _cells(each, _ratio)))
        rows.append(("  peak memory", _cells(each, _memory)))
        rows.append(("  joules", _cells(each, _joules)))
    return [(label, cells) for label, cells in rows if any(cells)]


def _cells(each: Sequence[ModelTiming | None], text: object) -> tuple[str, ...]:
    assert callable(text)
    return tuple("" if one is None else str(text(one)) for one in each)


def _slow(one: ModelTiming) -> str:
    return f"{one.percentiles['p90']:.3g}, {one.percentiles['p99']:.3g}"


def _ratio(one: ModelTiming) -> str:
    if one.ratio is None:
        return ""
    return f"{one.ratio:.3f} ({one.ratio_low:.3f} to {one.ratio_high:.3f})"


def _memory(one: ModelTiming) -> str:
    return "" if one.peak_bytes is None else format_bytes(one.peak_bytes)


def _joules(one: ModelTiming) -> str:
    return "" if one.joules is None else f"{one.joules:.3g}"


def _described(report: CompareReport) -> Iterator[Row]:
    models = report.models
    yield "kind", tuple(model.kind for model in models)
    yield "precision", tuple(model.precision for model in models)
    yield "architecture", tuple(model.architecture for model in models)
    yield (
        "classes",
        tuple("" if model.class_count is None else str(model.class_count) for model in models),
    )
    yield "input", tuple("x".join(map(str, model.input)) for model in models)


def _costs(report: CompareReport) -> Iterator[Row]:
    models = report.models
    for kind in ("flops", "params"):
        yield (
            cost_label(kind),
            tuple(
                _beside(
                    "" if (amount := model.cost.get(kind)) is None else format_quantity(amount),
                    (model.ratios or {}).get(kind),
                )
                for model in models
            ),
        )
    yield (
        "file",
        tuple(
            _beside(format_bytes(model.file_bytes), (model.ratios or {}).get("file_bytes"))
            for model in models
        ),
    )


def _beside(text: str, ratio: float | None) -> str:
    return text if ratio is None or not text else f"{text} ({ratio:.2f}x)"


def _scores(report: CompareReport) -> Iterator[Row]:
    scores = [model.scores for model in report.models]
    yield "accuracy", tuple("" if one is None else percent(one.accuracy) for one in scores)
    yield (
        "  95 %",
        tuple(
            "" if one is None else " to ".join(f"{100 * end:.1f}" for end in one.accuracy_interval)
            for one in scores
        ),
    )
    yield (
        "  change",
        tuple(
            ""
            if one is None or one.change is None or one.change_interval is None
            else f"{100 * one.change:+.1f} ("
            + " to ".join(f"{100 * end:+.1f}" for end in one.change_interval)
            + ")"
            for one in scores
        ),
    )
    yield "top-5", tuple("" if one is None else percent(one.top5) for one in scores)
    yield "loss", tuple("" if one is None else f"{one.loss:.4f}" for one in scores)


def _agreement(report: CompareReport) -> Iterator[Row]:
    found = [model.agreement for model in report.models]
    yield "same class", tuple("" if one is None else percent(one.same_class) for one in found)
    yield (
        "relative error",
        tuple(
            "" if one is None else f"{one.median_rel_error:.1e}, at most {one.max_rel_error:.1e}"
            for one in found
        ),
    )
