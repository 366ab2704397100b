"""What verbs show beside what they write: a page, and pictures in a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prunecli.html import check_page, write_page
from prunecli.pictures import check_folder, save_pictures
from prunecli.pictures.of_reports import NAMES, pictures_of
from prunecli.report import ExportReport, FinetuneReport, PruneReport, SweepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prunecli.errors import GateError

Shown = TypeVar("Shown", PruneReport, SweepReport, FinetuneReport, ExportReport)


@dataclasses.dataclass(frozen=True)
class Show:
    """Where to put what is for people: `page` is an HTML file, `plots` a folder of pictures."""

    page: Path | None
    plots: Path | None


def check_show(
    show: Show, verb: str, *, inputs: Iterable[Path | str | None], overwrite: bool
) -> None:
    """Raise `InputError` where a page or pictures cannot be put, before any work."""
    if show.page is not None:
        given = [Path(each) for each in inputs if each is not None]
        check_page(show.page, inputs=given, overwrite=overwrite)
    if show.plots is not None:
        check_folder(show.plots, NAMES[verb], overwrite=overwrite)


def gates_text(gates: Callable[[Shown], GateError | None] | None, report: Shown) -> str:
    """Say whether the stated gates are met by a report; nothing where none was stated."""
    if gates is None:
        return ""
    missed = gates(report)
    return "met" if missed is None else f"not met: {missed.message}"


def shown(report: Shown, show: Show, page: Callable[[Shown], str]) -> Shown:
    """Write what was asked for of a report, and return it with the files named."""
    pictures: tuple[Path, ...] = ()
    if show.plots is not None:
        pictures = save_pictures(show.plots, pictures_of(report))
    report = dataclasses.replace(report, pictures=pictures, page=show.page)
    if show.page is not None:
        write_page(show.page, page(report))
    return report
