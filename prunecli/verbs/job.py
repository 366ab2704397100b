"""What is asked of a verb that cuts: the same for every way to do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunecli.progress import Progress, silent

if TYPE_CHECKING:
    from prunecli.budget import Budget
    from prunecli.methods.default_recipe import Chosen
    from prunecli.options import LoadOptions, PruneOptions


@dataclass(frozen=True)
class Job:
    """The arguments of `prune`; a pattern of weights such as 2:4 has no budget."""

    model: Path
    output: Path | None
    budget: Budget | None
    chosen: Chosen
    load: LoadOptions | None = None
    data: str | None = None
    dry_run: bool = False
    overwrite: bool = False
    command: str = ""
    progress: Progress = silent

    @property
    def options(self) -> PruneOptions:
        """The options to prune by, with everything decided that nobody gave."""
        return self.chosen.options

    @property
    def target(self) -> Path:
        """Where the cut network goes: by default `<stem>.pruned.pt` in the current folder."""
        return self.output or Path(f"{self.model.stem}.pruned.pt")
