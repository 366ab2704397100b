"""What `prune` says about methods that train while they prune."""

from rich.table import Table

from prunecli.report import CoursePoint, IterativeReport, LearningReport, best_epoch_text
from prunecli.wording import counted, percent

from .table_parts import Parts, bare_percent, fact_rows, grid, shares_facts, shorten

MOST_POINTS = 25
"""Rows of the table of a course, unless more epochs than that ended."""


def iterative_facts(report: IterativeReport) -> dict[str, str]:
    """Return what an iterative cut did, or would do, in a line."""
    if report.accuracy is None:
        return iterative_plan(report)
    change = report.accuracy
    return {
        "iterative": f"{len(report.removals)} removals, held-out accuracy "
        f"{percent(change.before)} -> {percent(change.after)}",
        **shares_facts(report.shares),
    }


def iterative_parts(report: IterativeReport) -> Parts:
    """Return what was done on the way to an iterative cut, or what would be."""
    facts = {"signal": report.criterion}
    if report.accuracy is None:
        return [fact_rows(facts | iterative_plan(report))]
    table = grid("removal", ">updates", ">channels", ">FLOPs", ">loss", ">accuracy", ">ms/update")
    for removal in report.removals:
        table.add_row(
            str(removal.removal),
            str(removal.updates),
            str(removal.channels),
            percent(removal.flops),
            f"{removal.loss:.4f}",
            percent(removal.accuracy),
            f"{removal.seconds_per_update * 1e3:.0f}",
        )
    table.caption = f"scored on {report.images} held-out images before each removal"
    before, after = report.seconds_per_update or (0.0, 0.0)
    worst = max(removal.max_rel_error for removal in report.removals)
    facts["cuts"] = f"{len(report.removals)}, each verified (max relative error {worst:.1e})"
    facts["held out"] = f"{percent(report.accuracy.before)} -> {percent(report.accuracy.after)}"
    facts["one update"] = f"{before * 1e3:.0f} ms -> {after * 1e3:.0f} ms, {report.precision}"
    return [table, fact_rows(facts)]


def iterative_plan(report: IterativeReport) -> dict[str, str]:
    """Return what an iterative run would do."""
    return {
        "to do": f"about {report.planned_removals} removals, {report.planned_updates} updates, "
        f"{report.planned_seconds:.0f} s"
    }


def learning_facts(report: LearningReport) -> dict[str, str]:
    """Return what a method that learns what to prune did, or would do, in a line."""
    search = f", {report.search_epochs:.3g} of them choosing among {report.gates} channels"
    search = search if report.search_epochs else ""
    taught = {} if report.taught_by is None else {"teacher": report.taught_by.statement}
    if report.accuracy is None:
        return {
            "to do": f"{counted(report.epochs, 'epoch')}{search} ({report.precision})",
            **taught,
        }
    change = report.accuracy
    when = "" if report.search_epochs else " (before and after training)"
    return {
        "accuracy": f"{percent(change.before)} -> {percent(change.after)}{when}, held out; "
        f"best epoch {best_epoch_text(report.best_epoch, report.epochs)}",
        **taught,
        **shares_facts(report.shares),
    }


def learning_parts(report: LearningReport) -> Parts:
    """Return the course of a search: budget, costs and gates, and what was scored on the way."""
    parts: Parts = []
    if report.ungated:
        table = grid("no gates", "reason")
        for name, reason in report.ungated.items():
            table.add_row(shorten(name, 24), reason)
        parts.append(table)
    if report.course:
        parts.append(_course_table(report))
    if report.accuracy is not None:
        parts.append(fact_rows(_training_facts(report)))
    return parts


def thinned(course: tuple[CoursePoint, ...], most: int) -> tuple[CoursePoint, ...]:
    """Return `most` points of a course, evenly spread: the ends of epochs are always among them.

    The last point of the search counts as one: the channels are chosen there.
    """
    within = [at for at, point in enumerate(course) if point.accuracy is None]
    last = [
        at for at in within if at + 1 == len(course) or course[at + 1].phase != course[at].phase
    ]
    ends = {at for at, point in enumerate(course) if point.accuracy is not None} | set(last)
    within = [at for at in within if at not in ends]
    room = max(min(most - len(ends), len(within)), 0)
    chosen = {within[at * len(within) // room] for at in range(room)}
    return tuple(course[at] for at in sorted(ends | chosen))


def _course_table(report: LearningReport) -> Table:
    points = thinned(report.course, MOST_POINTS)
    table = grid(
        ">epoch", "phase", ">budget", ">expected", ">cost", ">alive", ">flips", ">loss", ">accuracy"
    )
    for point in points:
        table.add_row(
            f"{point.epoch:.2f}",
            point.phase,
            bare_percent(point.budget),
            bare_percent(point.expected),
            bare_percent(point.cost),
            str(point.alive),
            str(point.flips),
            "" if point.loss is None else f"{point.loss:.4f}",
            bare_percent(point.accuracy),
        )
    table.caption = "budget, expected and cost in % of the cost that the budget names first"
    left = len(report.course) - len(points)
    if left:
        table.caption += f"; {left} more points of the search are in the log and in --json"
    return table


def _training_facts(report: LearningReport) -> dict[str, str]:
    search = f"{report.search_epochs:.3g} of {report.epochs} epochs, {report.gates} channels"
    return {
        **({"search": search} if report.search_epochs else {}),
        "held out": f"{report.images} images",
        "precision": report.precision,
        "log": str(report.log) if report.log else "none",
    }
