"""Progress on stderr: bars on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prunecli.progress import Progress, Step, silent
from prunecli.report import COUNTS, SHARES
from prunecli.wording import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

LINE_EVERY = 10.0  # seconds between two lines about the same stage


@contextmanager
def bars(console: "Console") -> Iterator[Progress]:
    """Show one bar per running stage with its facts and the time left; clear them at the end."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.table import Column

    shown = RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[count]}", markup=False),
        # The only column that wraps: many facts take another line, not the room of the others.
        TextColumn("{task.fields[facts]}", markup=False, style="dim", table_column=Column()),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        redirect_stdout=False,
    )
    tasks: dict[str, TaskID] = {}

    def report(step: Step) -> None:
        if step.stage not in tasks:
            for stage in [stage for stage, task in tasks.items() if _is_endless(shown, task)]:
                shown.remove_task(tasks.pop(stage))  # a stage without a total ends with the next
            tasks[step.stage] = shown.add_task(
                printable(step.stage), total=step.total, count="", facts=""
            )
        shown.update(
            tasks[step.stage],
            completed=step.done,
            total=step.total,
            count=_count(step),
            facts=facts_text(step.facts),
        )
        if _is_finished(step):
            shown.remove_task(tasks.pop(step.stage))

    with shown:
        yield report


@contextmanager
def lines(say: Callable[[str], None]) -> Iterator[Progress]:
    """Say when a stage begins, and where it stands every few seconds: for logs."""
    begun: dict[str, float] = {}
    spoken: dict[str, float] = {}

    def report(step: Step) -> None:
        now = time.monotonic()
        if step.stage not in begun:
            begun[step.stage] = spoken[step.stage] = now
            announced = "" if step.done else facts_text(step.facts)
            say(" ".join(filter(None, (step.stage, announced))))
        elif now - spoken[step.stage] >= LINE_EVERY:
            spoken[step.stage] = now
            parts = (
                _count(step),
                facts_text(step.facts),
                _time_left(step, now - begun[step.stage]),
            )
            say(" ".join((step.stage, *filter(None, parts))))
        if _is_finished(step):
            begun.pop(step.stage)

    yield report


@contextmanager
def nothing() -> Iterator[Progress]:
    """Show nothing."""
    yield silent


def facts_text(facts: Mapping[str, float | str]) -> str:
    """Write facts in a few characters: `loss 0.412 accuracy 87.1 % images/s 1240`."""
    return " ".join(f"{name} {_fact(name, value)}" for name, value in facts.items())


def _is_endless(shown: "RichProgress", task: "TaskID") -> bool:
    return shown.tasks[shown.task_ids.index(task)].total is None


def _fact(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return printable(value)
    if "accuracy" in name or name in SHARES:
        return f"{value:.1%}"
    return f"{value:.0f}" if name in COUNTS or abs(value) >= 100 else f"{value:.3g}"


def _count(step: Step) -> str:
    if step.total is None:
        return str(step.done) if step.done else ""
    return f"{step.done}/{step.total}"


def _is_finished(step: Step) -> bool:
    return step.total is not None and step.done >= step.total


def _time_left(step: Step, elapsed: float) -> str:
    if not step.total or not step.done:
        return ""
    return f"{elapsed * (step.total - step.done) / step.done:.0f} s left"
