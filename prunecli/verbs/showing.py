"""What verbs show beside what they write: a page, and pictures in a folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prunecli.html import page_of, write_page
from prunecli.pictures import save_pictures
from prunecli.pictures.of_reports import pictures_of
from prunecli.preflight.outputs import check_folder, check_page
from prunecli.report import (
    NO_GATES,
    ExportReport,
    FinetuneReport,
    Gates,
    PruneReport,
    SweepReport,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Shown = TypeVar("Shown", PruneReport, SweepReport, FinetuneReport, ExportReport)


@dataclasses.dataclass(frozen=True)
class Show:
    """Where to put what is for people: `page` is an HTML file, `plots` a folder of pictures.

    A page says by which `command` it was made, and whether `gates` are met.
    """

    page: Path | None
    plots: Path | None
    command: str = ""
    gates: Gates = NO_GATES


def check_show(
    show: Show,
    pictures: Iterable[str],
    *,
    inputs: Iterable[Path | str | None],
    overwrite: bool,
) -> None:
    """Raise `InputError` where a page or pictures cannot be put, before any work."""
    if show.page is not None:
        given = [Path(each) for each in inputs if each is not None]
        check_page(show.page, inputs=given, overwrite=overwrite)
    if show.plots is not None:
        check_folder(show.plots, list(pictures), overwrite=overwrite)


def shown(report: Shown, show: Show) -> Shown:
    """Write what was asked for of a report, and return it with the files named."""
    pictures: tuple[Path, ...] = ()
    if show.plots is not None:
        pictures = save_pictures(show.plots, pictures_of(report))
    report = dataclasses.replace(report, pictures=pictures, page=show.page)
    if show.page is not None:
        write_page(show.page, page_of(report, command=show.command, gates=show.gates))
    return report
