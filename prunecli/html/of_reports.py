"""The page that goes with the report of a verb."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from prunecli.html.compressed import compressed_page
from prunecli.html.cuts import cut_page
from prunecli.html.runs import export_page, finetune_page
from prunecli.html.sweeps import sweep_page
from prunecli.report import (
    NO_GATES,
    CompressReport,
    ExportReport,
    FinetuneReport,
    Gates,
    PruneReport,
    SweepReport,
)


@singledispatch
def page_of(report: Any, *, command: str = "", gates: Gates = NO_GATES) -> str:
    """Return the page of a report, as `command` made it, with whether it meets `gates`."""
    raise NotImplementedError(type(report).__name__)


@page_of.register
def _(report: PruneReport, *, command: str = "", gates: Gates = NO_GATES) -> str:  # noqa: ARG001
    return cut_page(report, command=command)


@page_of.register
def _(report: SweepReport, *, command: str = "", gates: Gates = NO_GATES) -> str:  # noqa: ARG001
    return sweep_page(report, command=command)


@page_of.register
def _(report: FinetuneReport, *, command: str = "", gates: Gates = NO_GATES) -> str:  # noqa: ARG001
    return finetune_page(report, gates=gates)


@page_of.register
def _(report: ExportReport, *, command: str = "", gates: Gates = NO_GATES) -> str:  # noqa: ARG001
    return export_page(report, gates=gates)


@page_of.register
def _(report: CompressReport, *, command: str = "", gates: Gates = NO_GATES) -> str:  # noqa: ARG001
    return compressed_page(report, command=command)
