"""What model files are, and how they compare: info, compare and bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunecli.options import InfoOptions, LoadOptions
from prunecli.options.declare import chosen, takes
from prunecli.verbs.info import info as info_of_file

if TYPE_CHECKING:
    from prunecli.report import InfoReport


@takes(InfoOptions)
def info(
    path: str | Path,
    *,
    options: InfoOptions | None = None,
    load: LoadOptions | None = None,
    **choices: Any,
) -> InfoReport:
    """Return what a model file is: format, architecture, classes, input, costs, history, digest.

    Nothing in it is run. Keywords change `options`.
    """
    return info_of_file(Path(path), options=chosen(InfoOptions, options, choices), load=load)
